"""The dial's arithmetic on candidates whose draws are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignpro_lite.eval.dial import sampling_curves

STRENGTHS = (0.005, 0.02, 0.5)


def of(rewards, proposal=(0.0,) * 8):
    return {"reference": [0.0] * len(rewards), "proposal": proposal, "rewards": rewards}


def test_constant_rewards_leave_no_distance():
    """Holds down: a chain that always moves on read as log N, though its last state is from q."""
    prompts = [of(np.full((8, 4), 0.3)) for _ in range(20)]
    (curve,) = sampling_curves(prompts, STRENGTHS)
    for point in curve.points:
        assert point.reward.value == pytest.approx(0.3)
        assert point.kl == pytest.approx(0.0, abs=1e-9)


def test_luck_is_no_reward():
    """Half of the answers choose, the other half judges: noise alone gains nothing."""
    random = np.random.default_rng(0)
    (curve,) = sampling_curves([of(random.normal(0, 0.1, (8, 4))) for _ in range(300)], STRENGTHS)
    assert abs(curve.points[0].reward.value) < 0.02


@pytest.mark.parametrize("strength", [1e-6, 0.005, 0.05, 100.0])
@pytest.mark.parametrize("candidates", [2, 8])
def test_no_distance_is_beyond_what_a_choice_can_bring(strength, candidates):
    """Holds down: KL(ρ*) itself may be 7 nats, but a draw of N candidates is within log N of q."""
    random = np.random.default_rng(1)
    rewards = [random.normal(0, 0.2, (candidates, 4)) for _ in range(50)]
    prompts = [of(found, (0.0,) * candidates) for found in rewards]
    (curve,) = sampling_curves(prompts, (strength,))
    assert -1e-9 <= curve.points[0].kl <= math.log(candidates) + 1e-9


def test_without_noise_the_best_candidate_is_drawn_as_λ_falls():
    rewards = np.tile(np.linspace(0, 0.1, 8)[:, None], 4)
    (curve,) = sampling_curves([of(rewards)] * 2, (1e-6,))
    assert curve.points[0].reward.value == pytest.approx(0.1)


def test_too_few_prompts_give_no_curve():
    assert sampling_curves([of(np.zeros((8, 4))), of(np.zeros((1, 4)))], STRENGTHS) == ()
