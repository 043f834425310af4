"""Statistics of paired samples. Pure numpy: knows no model."""
