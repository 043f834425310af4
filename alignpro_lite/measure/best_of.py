"""What the best of several answers is worth, for every number of answers, from one pool of them."""

from __future__ import annotations

import math

import numpy as np

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import FloatArray, require_rewards


def expected_best(choosing: FloatArray, judging: FloatArray, count: int) -> FloatArray:
    """Expected reward of the best of `count` answers, without bias, for each prompt.

    It is the mean over all choices of `count` answers of the pool. With the answers of a prompt
    sorted by the reward that chooses, number r of P (from 0) is the best in C(r, count - 1) of
    the C(P, count) choices. Among equal answers, any order will do.

    Args:
        choosing: The reward by which the best answer is chosen, shape (prompts, P).
        judging: The reward that counts, for the same answers; same shape.
        count: 1 to P.

    Returns:
        Shape (prompts,).

    Raises:
        InputError: The shapes do not fit, a reward is not finite, or the pool is too small.
    """
    require_rewards(choosing, judging)
    pool = choosing.shape[1]
    if not 1 <= count <= pool:
        raise InputError(
            f"The best of {count} answers needs a pool of at least as many, found {pool}.",
            "Draw more answers to each prompt.",
        )
    order = np.argsort(choosing, axis=1, kind="stable")
    choices = math.comb(pool, count)
    weights = np.array([math.comb(rank, count - 1) / choices for rank in range(pool)])
    best: FloatArray = np.take_along_axis(judging, order, axis=1) @ weights
    return best
