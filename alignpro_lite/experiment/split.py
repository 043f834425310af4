"""The held-out split: a fixed property of a prompt, the same in every run and on every machine."""

from __future__ import annotations

import hashlib


def prompt_position(prompt: str) -> float:
    """Where a prompt falls in [0, 1): its sha256, white space and case normalised, as a number.

    Prompts below a share are held out; a larger share holds out all that a smaller one does.
    """
    normal = " ".join(prompt.casefold().split())
    digest = hashlib.sha256(normal.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
