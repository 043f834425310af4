"""Trains the reference prompter ρ_sft on hand-written pairs, before any reward."""
