"""Shares that are pooled over prompts of different size."""

from __future__ import annotations

import numpy as np

from alignpro_lite.measure.statistics import (
    LEVEL,
    Estimate,
    FloatArray,
    require_numbers,
    resampled_means,
)


def pooled_share(successes: FloatArray, trials: FloatArray, seed: int) -> Estimate:
    """Share of all trials that succeed, with its percentile bootstrap interval over prompts.

    Args:
        successes: How many trials of each prompt succeed, shape (prompts,), at least two.
        trials: How many there are, same shape, above 0.
        seed: Of the resampling.

    Raises:
        InputError: The shapes do not fit, or a number is not finite.
    """
    require_numbers("counts", ("prompts",), successes, trials, at_least=2)
    means = resampled_means(np.stack([successes, trials], axis=1), seed)
    low, high = np.quantile(means[:, 0] / means[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(successes.sum() / trials.sum()), float(low), float(high))
