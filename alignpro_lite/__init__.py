"""Align-Pro on the edge: a small prompter rewrites the prompt, a frozen target answers it.

Importing this package imports no engine: public names are resolved on first use.
"""
