"""Training towards ρ* in torch; needs the extra `[train]`."""
