"""The dial's arithmetic on candidates whose ρ* is known."""

from __future__ import annotations

import numpy as np
import pytest

from alignpro_lite.eval.dial import sampling_curves

STRENGTHS = (0.005, 0.02, 0.5)


def of(rewards, proposal=(0.0,) * 8):
    return {"reference": [0.0] * len(rewards), "proposal": proposal, "rewards": rewards}


def test_constant_rewards_leave_no_distance_whatever_proposes():
    """Holds down: unevenly proposed candidates alone read as 1.3 nats at any λ."""
    random = np.random.default_rng(0)
    prompts = [of(np.full((8, 4), 0.3), random.normal(3.1, 2.5, 8)) for _ in range(20)]
    for curve in sampling_curves(prompts, STRENGTHS):
        for point in curve.points:
            assert point.kl == pytest.approx(0.0, abs=1e-6)
            assert point.reward.value == pytest.approx(0.3)


def test_noise_of_answers_is_no_distance():
    """Holds down: noise of 0.1 alone read as 3.9 nats at λ = 0.005, more than 8 can show."""
    random = np.random.default_rng(0)
    fair, _ = sampling_curves([of(random.normal(0, 0.1, (8, 4))) for _ in range(300)], STRENGTHS)
    assert max(point.kl for point in fair.points) < 1.6
    assert abs(fair.points[0].reward.value) < 0.02


def test_without_noise_reward_and_distance_are_exact():
    rewards = np.linspace(0, 0.1, 8)
    fair, limit = sampling_curves([of(np.tile(rewards[:, None], 4))] * 2, (0.02,))
    weights = np.exp(rewards / 0.02)
    share = weights / weights.sum()
    for curve in (fair, limit):
        assert curve.points[0].kl == pytest.approx(float(share @ np.log(share * 8)))
        assert curve.points[0].reward.value == pytest.approx(float(share @ rewards))
