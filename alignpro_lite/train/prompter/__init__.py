"""Trains a prompter against the frozen target, and measures it on held-out prompts."""
