"""The spread of R without the noise of answers, and λ from it, in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.spread import spread_between, strength_for


def test_without_noise_it_is_the_standard_deviation():
    rewards = np.array([[0.0, 2.0], [1.0, 3.0], [5.0, 7.0]])
    assert spread_between(rewards, rewards, 0).value == pytest.approx(2**0.5)


@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_noise_makes_it_no_larger(noise):
    """The deviation of the means themselves would be 0.07 and 0.16."""
    random = np.random.default_rng(1)
    worth = random.normal(0, 0.05, (2000, 4)) + random.normal(0, 1, (2000, 1))
    first, second = (worth + random.normal(0, noise, worth.shape) for _ in range(2))
    found = spread_between(first, second, 0)
    assert found.low < 0.05 < found.high
    assert found.value == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("nats", [0.5, 1.0, 2.0])
def test_rho_star_at_that_strength_is_as_many_nats_away(nats):
    """By sums over a fine grid of a normal R."""
    spread = 0.034
    reward = np.linspace(-8 * spread, 8 * spread, 20_001)
    reference = np.exp(-0.5 * (reward / spread) ** 2)
    star = reference * np.exp(reward / strength_for(spread, nats))
    reference, star = reference / reference.sum(), star / star.sum()
    assert (star * np.log(star / reference)).sum() == pytest.approx(nats, rel=1e-3)


def test_where_there_is_no_spread_there_is_no_strength():
    first = np.array([[0.0, 1.0], [1.0, 0.0]])
    spread = spread_between(first, first[::-1], 0)
    assert spread.value == 0
    with pytest.raises(InputError, match="no spread"):
        strength_for(spread.value, 1.0)
