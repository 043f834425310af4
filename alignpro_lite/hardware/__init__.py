"""What hardware there is, and one plan that places both models on it."""
