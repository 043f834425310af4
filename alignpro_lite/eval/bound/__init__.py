"""`eval bound`: the terms of theorem 6.1, measured on real models."""
