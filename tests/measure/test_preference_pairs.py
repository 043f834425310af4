"""A reward model on preference pairs: numbers by hand, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.preference_pairs import (
    pair_accuracy,
    pair_calibration_error,
    pair_log_loss,
)


def test_pair_statistics_by_hand():
    margins = np.array([math.log(3), math.log(3), -math.log(3), 0.0])
    assert pair_accuracy(margins).value == pytest.approx(2.5 / 4)
    assert pair_log_loss(margins) == pytest.approx(
        -(2 * math.log(0.75) + math.log(0.25) + math.log(0.5)) / 4
    )
    # Confidence 0.75 three times with 2 of 3 right, 0.5 once with half right.
    assert pair_calibration_error(margins) == pytest.approx((3 * 0.75 - 2) / 4)


def test_certain_pairs_have_finite_losses():
    """Holds down: a probability of exactly 0 or 1 would make the loss infinite."""
    assert pair_log_loss(np.array([1000.0, -1000.0])) == pytest.approx(500)
    assert pair_calibration_error(np.array([1000.0, 1000.0])) == 0


def test_a_calibrated_model_has_almost_no_calibration_error():
    source = np.random.default_rng(0)
    margins = source.normal(0, 2, 40_000)
    preferred = source.random(margins.size) < 1 / (1 + np.exp(-margins))
    honest = np.where(preferred, margins, -margins)
    assert pair_calibration_error(honest) < 0.01
    assert pair_calibration_error(3 * honest) > 0.1


def test_coin_tossing_costs_log_two():
    margins = np.zeros(7)
    assert pair_log_loss(margins) == pytest.approx(math.log(2))
    assert pair_accuracy(margins).value == 0.5
    assert pair_calibration_error(margins) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pair_accuracy(np.array([])), "found"),
        (lambda: pair_log_loss(np.array([math.nan])), "finite margins"),
        (lambda: pair_calibration_error(np.zeros(3), bins=0), "at least 1 bin"),
    ],
)
def test_pairs_that_cannot_be_judged_are_refused(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert caught.value.cure
