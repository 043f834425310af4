"""How much better the answers are, and what the reward does not see; numpy only, no model."""
