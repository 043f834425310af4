"""How well a reward model agrees with people about which of two answers is better."""

from __future__ import annotations

import numpy as np

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import (
    Estimate,
    FloatArray,
    require_numbers,
    wilson,
    win_scores,
)


def pair_accuracy(margins: FloatArray) -> Estimate:
    """Share of pairs in which the preferred answer scores higher; a tie counts half.

    Args:
        margins: Log-odds that the preferred answer is better, under Bradley and Terry (1952) its
            reward minus that of the rejected answer; natural log, shape (pairs,).

    Returns:
        A share with its Wilson interval.

    Raises:
        InputError: There is no pair, or a margin is not finite.
    """
    _require_margins(margins)
    return wilson(float(win_scores(margins).sum()), margins.size)


def pair_log_loss(margins: FloatArray) -> float:
    """Mean of -log P(preferred wins), in nats; tossing a coin costs log 2 = 0.693.

    Args:
        margins: As in `pair_accuracy`.

    Raises:
        InputError: There is no pair, or a margin is not finite.
    """
    _require_margins(margins)
    return float(np.logaddexp(0.0, -margins).mean())


def pair_calibration_error(margins: FloatArray, bins: int = 10) -> float:
    """Expected calibration error of pair probabilities (Naeini et al. 2015; Guo et al. 2017).

    A pair's confidence is the probability of the answer that the model prefers, 0.5 to 1, so the
    order of the two answers does not matter. Pairs are binned by confidence in bins of equal width;
    each bin contributes the gap between its mean confidence and its accuracy, weighted by its share
    of the pairs.

    Args:
        margins: As in `pair_accuracy`.
        bins: How many bins between 0.5 and 1.

    Returns:
        0 (calibrated) to 1. With few pairs to a bin it is above 0 even for a calibrated model.

    Raises:
        InputError: There is no pair, a margin is not finite, or there is no bin.
    """
    _require_margins(margins)
    if bins < 1:
        raise InputError(f"Expected at least 1 bin, found {bins}.", "Pass a positive number.")
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = win_scores(margins)
    bin_of_pair = np.minimum(((confidence - 0.5) * 2 * bins).astype(np.intp), bins - 1)
    gaps = np.bincount(bin_of_pair, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / margins.size)


def _require_margins(margins: FloatArray) -> None:
    require_numbers("margins", ("pairs",), margins)
