"""The guard: its bound covers the truth as often as promised, and judges on fresh answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.rewriting.certificate import estimate_reward
from alignpro_lite.rewriting.guard import gain

TRIALS = 20_000


def judged_strictly(judged, raw):
    return gain(judged, raw, 0.0).is_certain


def covered(draw):
    """Share of trials in which the bound is below the true difference."""
    random = np.random.default_rng(0)
    return np.mean([truth >= found.lower for truth, found in (draw(random) for _ in range(TRIALS))])


@pytest.mark.parametrize("answers", [2, 4, 16])
@pytest.mark.parametrize("spread", [1.0, 5.0])
def test_the_bound_covers_the_difference_of_normal_rewards(answers, spread):
    def draw(random):
        better = random.normal(0.3, spread, answers)
        return 0.3, gain(better, random.normal(0.0, 1.0, answers), 0.0)

    assert 0.945 < covered(draw) <= 0.99


def test_the_bound_covers_rewards_that_are_not_normal():
    """Two-valued against skewed, both far from normal: 0.914, as the docstring of `gain` says."""

    def draw(random):
        rewritten = random.choice([0.0, 1.0], size=8, p=[0.3, 0.7])
        return 0.7 - 0.5, gain(rewritten, random.exponential(0.5, size=8), 0.0)

    assert covered(draw) > 0.9


def test_a_useless_rewrite_passes_one_time_in_twenty_at_most():
    random = np.random.default_rng(1)
    passed = [judged_strictly(random.normal(size=6), random.normal(size=6)) for _ in range(TRIALS)]
    assert np.mean(passed) < 0.055


def test_the_answers_that_chose_a_rewrite_must_not_judge_it():
    """The best of eight useless rewrites looks good on the answers that chose it, not on others."""
    random = np.random.default_rng(2)
    same, fresh = [], []
    for _ in range(2000):
        candidates = random.normal(size=(8, 6))
        best = candidates[candidates.mean(axis=1).argmax()]
        raw = random.normal(size=6)
        same.append(judged_strictly(best, raw))
        fresh.append(judged_strictly(random.normal(size=6), raw))
    assert np.mean(same) > 0.2
    assert np.mean(fresh) < 0.06


def test_by_hand():
    """Means 3 and 1, variances 2 and 2 of two answers each: 2 degrees of freedom, t 2.920."""
    found = gain(np.array([2.0, 4.0]), np.array([0.0, 2.0]), 1.5)
    assert found.estimate == 2
    assert found.lower == pytest.approx(2 - 2.920 * math.sqrt(2))
    assert not found.is_certain
    assert found.is_expected


def test_without_noise_and_without_enough_answers():
    assert gain(np.array([2.0, 2.0]), np.array([1.0, 1.0]), 1.0).lower == 1
    assert gain(np.array([2.0]), np.array([1.0, 1.0]), 1.0).lower == -math.inf
    assert not gain(np.array([1.0, 1.0]), np.array([1.0, 1.0]), 0.0).is_certain


@pytest.mark.parametrize("reward", [0.1, 0.25, 1 / 3, 1e9, -0.7])
@pytest.mark.parametrize("counts", [(8, 8), (7, 8), (2, 5)])
def test_equal_rewards_are_no_gain(reward, counts):
    """The mean of 7 and that of 8 equal numbers may differ in their last bit."""
    found = gain(np.full(counts[0], reward), np.full(counts[1], reward), 0.0)
    assert (found.estimate, found.lower) == (0, 0)
    assert not found.is_certain
    assert not found.is_expected


def test_without_answers_nothing_is_certain():
    found = gain(np.empty(0), np.array([1.0, 1.0]), 0.5)
    assert math.isnan(found.estimate)
    assert not found.is_certain
    assert found.is_expected


REWARDS = arrays(np.float64, st.integers(1, 6), elements=st.floats(-1e6, 1e6, width=32))


@given(REWARDS, REWARDS)
def test_any_rewards_give_a_bound_below_the_estimate(rewritten, raw):
    found = gain(rewritten, raw, 0.0)
    assert not math.isnan(found.lower)
    assert found.lower <= found.estimate


@pytest.mark.parametrize("size", [1e-170, 1e-90, 1e90, 1e140])
def test_the_bound_scales_with_the_rewards(size):
    """Holds down: the squares of large variances did not fit into a float."""
    judged, raw = np.array([3.0, 4, 5, 7]), np.array([1.0, 2, 2, 3])
    plain, scaled = gain(judged, raw, 0.0), gain(judged * size, raw * size, 0.0)
    assert scaled.lower == pytest.approx(plain.lower * size)


@pytest.mark.parametrize("chance", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("answers", [2, 8, 20])
def test_a_useless_rewrite_seldom_passes_whatever_the_law_of_rewards(chance, answers):
    random = np.random.default_rng(4)

    def rewards(kind):
        two_valued = (random.random(answers) < chance).astype(float)
        return two_valued if kind else -random.exponential(chance, answers)

    for kind in (False, True):
        passed = [judged_strictly(rewards(kind), rewards(kind)) for _ in range(4000)]
        assert np.mean(passed) < 0.075  # 1 in 16 at most: two zeros against two ones


@pytest.mark.parametrize("chance", [0.05, 0.5, 0.9, 0.95])
@pytest.mark.parametrize("answers", [2, 8, 20])
def test_the_interval_that_is_shown_covers_two_valued_rewards(chance, answers):
    """Holds down: answers that all got the same reward gave an interval without width, which
    covered a chance of 0.95 in 9 % of cases for two answers and in 34 % for eight."""
    random = np.random.default_rng(5)
    found = [estimate_reward((random.random(answers) < chance) * 1.0) for _ in range(2000)]
    assert np.mean([reward.low <= chance <= reward.high for reward in found]) > 0.85
