"""The best of n from a pool, against choosing from every subset of it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.best_of import expected_best


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6])
def test_it_is_the_mean_over_every_choice_of_n_answers(count):
    """Also under another judge than the one that chooses."""
    random = np.random.default_rng(count)
    choosing, judging = random.normal(size=(2, 4, 6))
    found = expected_best(choosing, judging, count)
    for row in range(4):
        picked = [
            judging[row, max(subset, key=lambda place: choosing[row, place])]
            for subset in combinations(range(6), count)
        ]
        assert found[row] == pytest.approx(np.mean(picked))


def test_the_best_of_one_is_the_mean_and_of_all_is_the_best():
    rewards = np.random.default_rng(0).normal(size=(5, 7))
    assert expected_best(rewards, rewards, 1) == pytest.approx(rewards.mean(axis=1))
    assert expected_best(rewards, rewards, 7) == pytest.approx(rewards.max(axis=1))


def test_it_has_no_bias():
    """The best of 4 of a standard normal is 1.0294 on average, whatever the pool."""
    random = np.random.default_rng(1)
    for pool in (4, 9):
        rewards = random.normal(size=(40_000, pool))
        assert expected_best(rewards, rewards, 4).mean() == pytest.approx(1.0294, abs=0.015)


@pytest.mark.parametrize("count", [0, 4])
def test_a_pool_that_is_too_small_is_refused(count):
    rewards = np.zeros((2, 3))
    with pytest.raises(InputError, match=f"best of {count} answers needs a pool"):
        expected_best(rewards, rewards, count)
