"""Trains a reward model on preference pairs and ratings."""
