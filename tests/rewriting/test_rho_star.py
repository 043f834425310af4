"""Draws from ρ*: exact where the samplers are, closed forms for the diagnostics, safe anywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.rewriting.rho_star import (
    LARGEST_NOISE,
    Candidates,
    diagnose,
    log_weights,
    mean_rewards,
    metropolis_hastings,
    resample,
    shares,
)

SFT = np.array([0.05, 0.3, 0.15, 0.25, 0.1, 0.15])
REWARD = np.array([0.9, 0.1, 0.4, -0.2, 0.6, 0.0])
STRENGTH = 0.5
STAR = SFT * np.exp(REWARD / STRENGTH) / (SFT * np.exp(REWARD / STRENGTH)).sum()
PROPOSAL = np.array([0.1, 0.25, 0.2, 0.15, 0.2, 0.1])
DRAWS = 1_000_000
CHUNK = 50_000


def candidates(reference, proposal, reward, variance=None):
    noise = np.zeros_like(reward) if variance is None else variance
    return Candidates(np.log(reference), np.log(proposal), reward, noise)


def toy_weights(drawn, noise=0.0, variance=0.0):
    """Log-weights of rewrites of the toy, drawn from PROPOSAL, shape as `drawn`."""
    rewards = REWARD[drawn] + noise
    return np.log(SFT / PROPOSAL)[drawn] + rewards / STRENGTH - variance / (2 * STRENGTH**2)


def counts(draw_chunk):
    total = np.zeros(len(STAR))
    for seed in range(DRAWS // CHUNK):
        total += np.bincount(draw_chunk(np.random.default_rng(seed)), minlength=len(STAR))
    return total


def chi_square(observed):
    expected = STAR * observed.sum()
    return float(((observed - expected) ** 2 / expected).sum())


def total_variation(observed):
    return float(np.abs(observed / observed.sum() - STAR).sum() / 2)


CRITICAL = 20.515
"""The 0.999 quantile of chi-square with 5 degrees of freedom, as in any printed table."""


def mh_draws(random, size):
    drawn = random.choice(len(STAR), size=(CHUNK, size), p=PROPOSAL)
    chosen = metropolis_hastings(toy_weights(drawn), random)[..., -1]
    return drawn[np.arange(CHUNK), chosen]


def test_a_million_chains_pass_a_chi_square_test_against_rho_star():
    """The chain forgets its start at the rate (1 - 1/max w)^N: at 48 candidates it is exact."""
    weights = STAR / PROPOSAL
    assert (1 - 1 / weights.max()) ** 48 < 1e-6
    assert chi_square(counts(lambda random: mh_draws(random, 48))) < CRITICAL


def test_the_chi_square_test_can_fail():
    assert chi_square(counts(lambda random: mh_draws(random, 4))) > CRITICAL


@pytest.mark.parametrize("sampler", ["chain", "resampling"])
def test_a_proposal_that_is_rho_star_makes_both_exact_at_any_size(sampler):
    def draw(random):
        drawn = random.choice(len(STAR), size=(CHUNK, 3), p=STAR)
        weights = np.log(SFT / STAR)[drawn] + REWARD[drawn] / STRENGTH
        if sampler == "chain":
            chosen = metropolis_hastings(weights, random)[..., -1]
        else:
            chosen = resample(weights, random)
        return drawn[np.arange(CHUNK), chosen]

    assert chi_square(counts(draw)) < CRITICAL


def distance_of_resampling(size):
    def draw(random):
        drawn = random.choice(len(STAR), size=(CHUNK, size), p=PROPOSAL)
        return drawn[np.arange(CHUNK), resample(toy_weights(drawn), random)]

    return total_variation(counts(draw))


def test_resampling_comes_closer_like_one_over_n_and_the_chain_is_closer_still():
    distances = {size: distance_of_resampling(size) for size in (4, 8, 16)}
    assert distances[4] / distances[8] == pytest.approx(2, rel=0.25)
    assert distances[8] / distances[16] == pytest.approx(2, rel=0.25)
    for size in (4, 8, 16):
        assert total_variation(counts(lambda random, n=size: mh_draws(random, n))) < distances[size]


def noisy_distance(corrected):
    """Of chains of 32 whose rewards have normal noise that differs between rewrites."""
    deviation = STRENGTH * np.linspace(0.1, 1.2, len(STAR))

    def draw(random):
        drawn = random.choice(len(STAR), size=(CHUNK, 32), p=PROPOSAL)
        noise = random.normal(size=drawn.shape) * deviation[drawn]
        variance = deviation[drawn] ** 2 if corrected else np.zeros(drawn.shape)
        chosen = metropolis_hastings(toy_weights(drawn, noise, variance), random)[..., -1]
        return drawn[np.arange(CHUNK), chosen]

    return total_variation(counts(draw))


def test_with_noisy_rewards_the_correction_is_at_least_twice_as_close():
    assert noisy_distance(corrected=True) < noisy_distance(corrected=False) / 2


def test_diagnostics_equal_closed_forms_when_every_rewrite_is_a_candidate():
    """Candidates that are the whole space, uniformly proposed, make the estimates exact."""
    uniform = np.full(len(STAR), 1 / len(STAR))
    found = diagnose(candidates(SFT, uniform, REWARD), STRENGTH)
    log_z = math.log((SFT * np.exp(REWARD / STRENGTH)).sum())
    assert found.log_z == pytest.approx(log_z)
    assert found.objective == pytest.approx(STRENGTH * log_z)
    assert found.reward == pytest.approx(STAR @ REWARD)
    assert found.kl == pytest.approx(STAR @ np.log(STAR / SFT))
    assert found.ess == pytest.approx(1 / (STAR @ STAR))
    assert found.distance == pytest.approx(STAR @ STAR)


def test_the_error_of_log_z_is_its_spread():
    random, found = np.random.default_rng(0), []
    for _ in range(4000):
        drawn = random.choice(len(STAR), size=64, p=PROPOSAL)
        found.append(diagnose(candidates(SFT[drawn], PROPOSAL[drawn], REWARD[drawn]), STRENGTH))
    spread = np.std([estimate.log_z for estimate in found])
    assert np.mean([estimate.log_z_error for estimate in found]) == pytest.approx(spread, rel=0.1)


def test_an_endless_lambda_gives_the_reference_and_none_the_best():
    drawn = candidates(SFT, SFT, REWARD, np.linspace(0.01, 0.5, len(SFT)))
    np.testing.assert_allclose(shares(log_weights(drawn, 1e6)), 1 / len(SFT), rtol=1e-5)
    assert shares(log_weights(drawn, 1e-6)).argmax() == REWARD.argmax()


def test_the_correction_is_bounded_and_by_hand():
    drawn = candidates(SFT, SFT, np.zeros(2 * 3), np.array([0, 0.25, 1, 4, 9, 1e6]))
    weights = log_weights(drawn, 1.0)
    assert weights == pytest.approx(-np.array([0, 0.125, 0.5, 2, 2, 2]))
    assert LARGEST_NOISE == 2


def test_mean_rewards_by_hand():
    mean, variance = mean_rewards(
        [np.array([0.0, 2.0]), np.array([1.0]), np.array([3.0, 3.0, 3.0])]
    )
    assert mean == pytest.approx([1, 1, 3])
    pooled = 2 / 3  # squares 2, 0 and 0; degrees of freedom 1, 0 and 2
    expected = [(2 + 4 * pooled) / 5 / 2, pooled, 4 * pooled / 6 / 3]
    assert variance == pytest.approx(expected)
    assert mean_rewards([np.array([1.0]), np.array([2.0])])[1] == pytest.approx([0, 0])


def test_a_candidate_does_not_depend_on_how_many_follow():
    weights = np.log(np.random.default_rng(1).random(20))
    whole = metropolis_hastings(weights, np.random.default_rng(2))
    for size in (1, 5, 19):
        part = metropolis_hastings(weights[:size], np.random.default_rng(2))
        assert (part == whole[:size]).all()


FINITE = st.floats(-1e9, 1e9, allow_nan=False)
LOG_PROBS = st.one_of(st.floats(-1e4, 0), st.just(-math.inf))


@given(st.data(), st.integers(1, 6), st.floats(-6, 6))
def test_any_candidates_are_weighed_and_drawn_from_safely(data, size, exponent):
    """λ from 1e-6 to 1e6, rewards of any scale, -inf, and duplicates."""
    reference = data.draw(arrays(np.float64, size, elements=LOG_PROBS))
    proposal = data.draw(arrays(np.float64, size, elements=LOG_PROBS))
    rewards = data.draw(arrays(np.float64, size, elements=FINITE))
    variance = data.draw(arrays(np.float64, size, elements=st.floats(0, 1e12)))
    drawn = Candidates(reference, proposal, rewards, variance)
    strength = 10.0**exponent
    weights = log_weights(drawn, strength)
    assert not np.isnan(weights).any()
    assert shares(weights).sum() == pytest.approx(1)
    possible = np.isfinite(weights)
    random = np.random.default_rng(0)
    for place in (
        int(metropolis_hastings(weights, random)[..., -1]),
        int(resample(weights, random)),
    ):
        assert 0 <= place < size
        assert possible[place] or not possible.any()
    found = diagnose(drawn, strength)
    assert found.ess == 0 if not possible.any() else 1 - 1e-9 <= found.ess <= size * (1 + 1e-9)
    assert found.kl >= 0
    assert 0 <= found.distance <= 1
    assert not math.isnan(found.log_z)
