"""The learning rate of every training loop of our own."""

from __future__ import annotations

import math


def learning_rate_at(step: int, steps: int, warmup: int, highest: float) -> float:
    """Linear warm-up, then half a cosine wave down to a tenth.

    Args:
        step: Steps done.
        steps: Steps of the whole run.
        warmup: Steps until the highest rate is reached.
        highest: That rate.
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return highest * (0.55 + 0.45 * math.cos(math.pi * done))
