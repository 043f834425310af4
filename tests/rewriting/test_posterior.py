"""What a few answers say about R: closed forms at the ends, and better than plain means between."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.rewriting.posterior import Tally, posterior, tally


def test_a_tally_by_hand():
    found = tally([np.array([0.0, 2.0]), np.array([1.0])], [np.array([5.0, 7.0]), np.array([])])
    assert found.count == pytest.approx([2, 1])
    assert found.mean == pytest.approx([1, 1])
    assert (float(found.squares), float(found.degrees)) == (4, 2)  # the two sides with two answers


def test_without_noise_every_mean_is_believed():
    rewards = np.linspace(0, 0.1, 8)
    found = posterior(tally([np.full(4, reward) for reward in rewards]))
    assert found.mean == pytest.approx(rewards, abs=1e-7)
    assert found.reliability == pytest.approx(1, abs=1e-5)
    assert found.variance == pytest.approx(0, abs=1e-8)


def test_means_that_noise_explains_are_drawn_together():
    random = np.random.default_rng(0)
    means = random.normal(0.5, 0.1, (64, 8))
    found = posterior(tally(list(means)))
    assert found.mean.std() < 0.3 * means.mean(axis=1).std()
    assert found.mean.mean() == pytest.approx(means.mean(), abs=1e-6)


def test_the_reliability_is_that_of_the_variances():
    """Between 0.034², single answers 0.11², two each: 0.16; eight each: 0.43."""
    random = np.random.default_rng(1)
    for answers, expected in ((2, 0.16), (8, 0.43)):
        worth = random.normal(0, 0.034, (3000, 1))
        rewards = worth + random.normal(0, 0.11, (3000, answers))
        found = posterior(tally(list(rewards)))
        assert found.reliability.mean() == pytest.approx(expected, abs=0.05)
        error = ((found.mean - worth[:, 0]) ** 2).mean()
        assert error == pytest.approx(found.variance.mean(), rel=0.3)
        assert error < ((rewards.mean(axis=1) - worth[:, 0]) ** 2).mean() / 1.5


def test_more_answers_count_for_more():
    found = posterior(tally([np.array([0.0, 1.0]), np.tile([0.0, 1.0], 50), np.full(2, 3.0)]))
    assert found.variance[1] < found.variance[0] / 5
    assert abs(found.mean[1] - 0.5) < abs(found.mean[0] - 0.5)


def test_answers_to_other_prompts_show_the_noise():
    """One answer to each rewrite cannot tell noise from differences; others can."""
    rewards = [np.array([reward]) for reward in np.linspace(0, 0.1, 8)]
    quiet, loud = (
        posterior(tally(rewards, [np.linspace(-noise, noise, 16)])) for noise in (0.001, 0.1)
    )
    assert quiet.reliability.mean() > 0.95
    assert loud.reliability.mean() < 0.4


def test_leading_axes_are_requests():
    random = np.random.default_rng(2)
    tallies = [tally(list(random.normal(size=(3, 4)))) for _ in range(5)]
    together = posterior(
        Tally(*(np.array([getattr(found, name) for found in tallies]) for name in NAMES))
    )
    for place, found in enumerate(tallies):
        alone = posterior(found)
        assert together.mean[place] == pytest.approx(alone.mean)
        assert together.variance[place] == pytest.approx(alone.variance)


NAMES = ("count", "mean", "squares", "degrees")


def test_a_rewrite_without_answers_is_like_the_others():
    found = posterior(
        Tally(np.array([4.0, 0, 4]), np.array([1.0, 99, 2]), np.array(1.0), np.array(6.0))
    )
    assert 1 < found.mean[1] < 2
    assert found.variance[1] > found.variance[0]


def test_a_single_answer_says_nothing_about_its_noise():
    found = posterior(tally([np.array([0.3])]))
    assert found.mean == pytest.approx([0.3])
    assert found.variance == math.inf


def test_the_variance_of_a_mean_is_that_of_the_covariance():
    found = posterior(tally(list(np.random.default_rng(3).normal(size=(4, 3)))))
    covariance = np.diag(found.own) + found.shared @ found.shared.T
    share = np.array([0.1, 0.2, 0.3, 0.4])
    assert found.variance == pytest.approx(np.diag(covariance))
    assert found.variance_of_mean(share) == pytest.approx(share @ covariance @ share)


REWARDS = arrays(np.float64, st.integers(1, 4), elements=st.floats(-1e9, 1e9))


@given(st.lists(REWARDS, min_size=1, max_size=5))
def test_any_rewards_give_a_mean_between_them(answers):
    found = posterior(tally(answers))
    means = np.array([rewards.mean() for rewards in answers])
    slack = 1e-6 * (1 + abs(means).max())
    assert not np.isnan(found.mean).any()
    assert not np.isnan(found.variance).any()
    assert (found.mean >= means.min() - slack).all()
    assert (found.mean <= means.max() + slack).all()
    assert ((found.reliability >= 0) & (found.reliability <= 1)).all()
