"""Wins at equal length: numbers by hand, coverage, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.errors import InputError
from alignpro_lite.measure.length_control import length_controlled_win
from alignpro_lite.measure.statistics import Estimate, answer_win_rate, wilson

FIRST = np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
SECOND = np.array([[0.0, 2.0], [2.0, 2.0], [3.0, 5.0]])
SAME_LENGTH = np.full((3, 2), 10.0)


def matrices(prompts: int, answers: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, (prompts, answers), elements=st.integers(-4, 4).map(float))


def numbers(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def test_length_control_by_hand():
    """Two kinds of prompts, longer and shorter by the same: log-odds average to the intercept.

    Longer answers win 9 of 10, shorter ones 6 of 10, and tanh(Δ / sd(Δ)) is ±tanh(1).
    """
    wins = np.repeat([1.0, -1, 1, -1], [9, 1, 6, 4])[:, None]
    words = np.repeat([30.0, 10.0], 10)[:, None]
    found = length_controlled_win(wins, wins * 0, words, np.full((20, 1), 20.0))
    odds = (math.log(9) + math.log(1.5)) / 2
    assert found.value == pytest.approx(1 / (1 + math.exp(-odds)), abs=2e-3)
    assert found.value > 15 / 20  # of probabilities, the mean is 0.75


def test_the_sandwich_by_hand():
    """Without a difference in length it is that of a share: the variance of the prompts' means."""
    source = np.random.default_rng(5)
    first, same = source.normal(0.3, 1, (50, 3)), np.full((50, 3), 7.0)
    second = source.normal(0, 1, (50, 3))
    share = np.sign(first[:, :, None] - second[:, None, :]).mean(axis=(1, 2)) / 2 + 0.5
    error = share.std(ddof=1) / math.sqrt(50) / (share.mean() * (1 - share.mean()))
    odds = math.log(share.mean() / (1 - share.mean()))
    found = length_controlled_win(first, second, same, same)
    low, high = (1 / (1 + math.exp(-odds - sign * 1.96 * error)) for sign in (-1, 1))
    assert numbers(found) == pytest.approx((share.mean(), low, high), abs=1e-3)


@settings(max_examples=40, deadline=None)
@given(matrices(6, 2), matrices(6, 2), matrices(6, 2), matrices(6, 2))
def test_length_control_of_any_data_is_a_probability_and_swaps(first, second, words, others):
    """Holds down: separable data has no finite maximum of the likelihood."""
    there = length_controlled_win(first, second, words, others)
    back = length_controlled_win(second, first, others, words)
    assert 0 <= there.low <= there.value <= there.high <= 1
    assert numbers(there) == pytest.approx((1 - back.value, 1 - back.high, 1 - back.low), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(matrices(6, 2), matrices(6, 2), st.integers(0, 5))
def test_without_a_difference_in_length_it_is_the_plain_rate(first, second, longer):
    words = np.full((6, 2), 10.0)
    found = length_controlled_win(first, second, words + longer, words)
    plain = answer_win_rate(first, second, 0).value
    assert found.value == pytest.approx(plain, abs=2e-3)


def test_all_won_is_as_uncertain_as_its_prompts_are_few():
    found = length_controlled_win(FIRST + 9, SECOND, SAME_LENGTH, SAME_LENGTH + FIRST)
    assert found == wilson(3, 3)


def test_an_arm_that_wins_by_length_alone_wins_nothing():
    source = np.random.default_rng(6)
    words, others = source.normal(120, 30, (400, 3)), source.normal(100, 30, (400, 3))
    first = 0.02 * words + source.logistic(0, 1, (400, 3))
    second = 0.02 * others + source.logistic(0, 1, (400, 3))
    plain = answer_win_rate(first, second, 0)
    found = length_controlled_win(first, second, words, others)
    assert plain.low > 0.5
    assert found.low < 0.5 < found.high


def _lengthy(source, prompts):
    """Two arms of which the first is better and longer, by a gain that differs by prompt."""
    words = source.normal(120, 30, (prompts, 3)) + source.normal(0, 20, (prompts, 1))
    others = source.normal(100, 30, (prompts, 3))
    gain = source.normal(0.4, 1, (prompts, 1))
    first = gain + 0.01 * words + source.normal(0, 1, (prompts, 3))
    return first, 0.01 * others + source.normal(0, 1, (prompts, 3)), words, others


def test_length_control_covers_the_truth_as_often_as_it_says():
    source = np.random.default_rng(7)
    truth = length_controlled_win(*_lengthy(source, 20_000)).value
    trials, covered = 300, 0
    for _ in range(trials):
        found = length_controlled_win(*_lengthy(source, 60))
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / trials <= 0.98


def test_arms_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="equal shape"):
        length_controlled_win(FIRST, SECOND, SAME_LENGTH, SAME_LENGTH[0])
    with pytest.raises(InputError, match="at least 2 prompts"):
        length_controlled_win(*[FIRST[:1]] * 4)
