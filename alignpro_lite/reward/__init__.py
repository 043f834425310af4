"""Rewards: what scores an answer against the original prompt."""
