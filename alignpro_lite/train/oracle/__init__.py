"""Trains the oracle: the target itself, aligned on the same reward."""
