"""Estimates and comparisons of two arms: numbers by hand, coverage, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.errors import InputError
from alignpro_lite.measure import statistics as stats

FIRST = np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
SECOND = np.array([[0.0, 2.0], [2.0, 2.0], [3.0, 5.0]])


def rewards(prompts: int, answers: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, (prompts, answers), elements=st.integers(-4, 4).map(float))


def test_every_number_of_a_comparison_by_hand():
    """Means of a prompt: 2, 2, 2 against 1, 2, 4; variances: 2, 0, 8 against 2, 0, 2."""
    assert stats.mean_difference(FIRST, SECOND, 0).value == pytest.approx((1 + 0 - 2) / 3)
    # Pairs of answers: 1-0 won, 1-2 lost, 3-0 and 3-2 won; four ties; of 0, 4 only 4-3 won.
    wins = stats.answer_win_rate(FIRST, SECOND, 0)
    assert wins.value == pytest.approx((3 / 4 + 1 / 2 + 1 / 4) / 3)
    assert stats.within_prompt_variances(FIRST) == pytest.approx([2, 0, 8])
    assert stats.within_prompt_variances(SECOND) == pytest.approx([2, 0, 2])
    assert stats.variance_difference(FIRST, SECOND, 0).value == pytest.approx(2)


def test_the_bootstrap_of_two_prompts_is_known():
    """Its resamples are (0, 0), (0, 1), (1, 0), (1, 1): the ends hold a quarter each."""
    assert stats.bootstrap_mean(np.array([0.0, 1.0]), seed=5) == stats.Estimate(0.5, 0.0, 1.0)


def test_a_seed_repeats_an_interval():
    values = np.arange(30.0)
    assert stats.bootstrap_mean(values, seed=1) == stats.bootstrap_mean(values, seed=1)
    assert stats.bootstrap_mean(values, seed=1) != stats.bootstrap_mean(values, seed=2)


def test_the_bootstrap_covers_the_truth_as_often_as_it_says(monkeypatch):
    """Prompts of very different difficulty, noisy answers, a true gain of 0.1."""
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    source = np.random.default_rng(0)
    trials, covered = 300, 0
    for trial in range(trials):
        difficulty = source.normal(0, 3, (80, 1))
        gain = source.normal(0.1, 0.5, (80, 1))
        first = difficulty + gain + source.normal(0, 1, (80, 4))
        second = difficulty + source.normal(0, 1, (80, 4))
        interval = stats.mean_difference(first, second, seed=trial)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.91 <= covered / trials <= 0.98


def test_pairing_shows_a_gain_that_the_spread_of_prompts_would_hide():
    source = np.random.default_rng(1)
    second = source.normal(0, 5, (60, 1)) + source.normal(0, 0.2, (60, 4))
    interval = stats.mean_difference(second + 0.3, second, seed=0)
    assert interval.low == pytest.approx(0.3)
    assert interval.high == pytest.approx(0.3)


@settings(max_examples=30, deadline=None)
@given(rewards(6, 3), rewards(6, 3), st.integers(0, 99))
def test_swapping_the_arms_mirrors_every_statistic(first, second, seed):
    for statistic, whole in (
        (stats.mean_difference, 0),
        (stats.variance_difference, 0),
        (stats.answer_win_rate, 1),
    ):
        ours, mirrored = statistic(first, second, seed), statistic(second, first, seed)
        assert ours.value == pytest.approx(whole - mirrored.value, abs=1e-9)
        assert ours.low == pytest.approx(whole - mirrored.high, abs=1e-9)
        assert ours.high == pytest.approx(whole - mirrored.low, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(rewards(5, 2), rewards(5, 2), st.permutations(range(5)))
def test_the_order_of_the_prompts_does_not_matter(first, second, order):
    for statistic in (stats.mean_difference, stats.variance_difference, stats.answer_win_rate):
        shuffled = statistic(first[order], second[order], 0)
        assert statistic(first, second, 0).value == pytest.approx(shuffled.value)


def test_wilson_by_hand():
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29."""
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = stats.wilson(successes, trials)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, 2 * n), st.just(n))))
def test_wilson_stays_around_its_share(case):
    halves, trials = case
    found = stats.wilson(halves / 2, trials)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: stats.mean_difference(FIRST, SECOND[:2], 0), "equal shape"),
        (lambda: stats.mean_difference(FIRST[0], SECOND[0], 0), r"shape \(prompts, answers\)"),
        (lambda: stats.mean_difference(np.zeros((0, 2)), np.zeros((0, 2)), 0), "found"),
        (lambda: stats.mean_difference(FIRST[:1], SECOND[:1], 0), "at least 2 prompts"),
        (lambda: stats.variance_difference(FIRST[:, :1], SECOND[:, :1], 0), "at least 2 answers"),
        (lambda: stats.answer_win_rate(FIRST, np.full_like(FIRST, math.nan), 0), "6 of 12"),
        (lambda: stats.within_prompt_variances(FIRST * math.inf), "finite rewards"),
        (lambda: stats.wilson(1, 0), "at least one trial"),
        (lambda: stats.wilson(5, 4), "0 to 4"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_arms_that_cannot_be_compared_are_refused(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert caught.value.cure
