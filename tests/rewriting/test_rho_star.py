"""Draws from ρ*: exact where the samplers are, closed forms for the diagnostics, safe anywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.rewriting.posterior import Posterior, Tally, posterior, tally
from alignpro_lite.rewriting.rho_star import (
    LEAST_ESS,
    WeighedCandidates,
    diagnose,
    log_weights,
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


def known(reward):
    """R without noise."""
    nothing = np.zeros_like(reward)
    return Posterior(reward, nothing, nothing[:, None], np.ones_like(reward))


def candidates(reference, proposal, reward):
    return WeighedCandidates(
        np.log(reference), np.log(proposal), np.arange(len(reward)), known(reward)
    )


def toy_candidates(places, worth):
    """Rewrites of the toy, drawn from PROPOSAL."""
    rewrites = places % len(STAR)
    return WeighedCandidates(np.log(SFT)[rewrites], np.log(PROPOSAL)[rewrites], places, worth)


def toy_weights(drawn):
    """Log-weights of chains of exactly known rewrites, shape as `drawn`."""
    return log_weights(toy_candidates(drawn.ravel(), known(REWARD)), STRENGTH).reshape(drawn.shape)


def noisy_weights(drawn, random, deviation):
    """The same by an answer each, whose noise depends on the rewrite; equal ones count together."""
    rewards = REWARD[drawn] + random.normal(size=drawn.shape) * deviation[drawn]
    is_rewrite = drawn[..., None] == np.arange(len(STAR))
    count = is_rewrite.sum(axis=1).astype(float)
    mean = (is_rewrite * rewards[..., None]).sum(axis=1) / np.maximum(count, 1)
    squares = ((rewards - np.take_along_axis(mean, drawn, 1)) ** 2).sum(axis=1)
    worth = posterior(Tally(count, mean, squares, np.maximum(count - 1, 0).sum(axis=1)))
    chain = np.arange(len(drawn))[:, None] * len(STAR)
    return log_weights(
        toy_candidates((chain + drawn).ravel(), known(worth.mean.ravel())), STRENGTH
    ).reshape(drawn.shape)


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
        worth, flat = known(REWARD), drawn.ravel()
        proposed = WeighedCandidates(np.log(SFT)[flat], np.log(STAR)[flat], flat, worth)
        weights = log_weights(proposed, STRENGTH).reshape(drawn.shape)
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


def noisy_distance(size, draws=6_000):
    """Of chains whose rewards have normal noise that differs between rewrites, 0.1 to 1.2 λ."""
    deviation = STRENGTH * np.linspace(0.1, 1.2, len(STAR))
    total = np.zeros(len(STAR))
    for seed in range(draws // 2000):
        random = np.random.default_rng(seed)
        drawn = random.choice(len(STAR), size=(2000, size), p=PROPOSAL)
        chosen = metropolis_hastings(noisy_weights(drawn, random, deviation), random)[..., -1]
        total += np.bincount(drawn[np.arange(2000), chosen], minlength=len(STAR))
    return total_variation(total)


def test_noise_goes_away_as_candidates_are_added():
    """Holds down: answers shared by equal rewrites kept their noise, 0.065 at 256 candidates."""
    assert noisy_distance(64) < noisy_distance(16) / 2
    assert noisy_distance(256) < 0.03


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


LOG_Z = math.log(SFT @ np.exp(REWARD / STRENGTH))


def test_the_error_of_log_z_is_its_spread():
    random, found = np.random.default_rng(0), []
    for _ in range(2000):
        drawn = random.choice(len(STAR), size=64, p=PROPOSAL)
        found.append(diagnose(toy_candidates(drawn, known(REWARD)), STRENGTH))
    spread = np.std([estimate.log_z for estimate in found])
    assert np.mean([estimate.log_z_error for estimate in found]) == pytest.approx(spread, rel=0.15)
    assert np.mean([covers(estimate, LOG_Z) for estimate in found]) > 0.93


def covers(found, log_z):
    return abs(found.log_z - log_z) <= 1.96 * found.log_z_error


def diagnosed(random, size, answers, spread, noise, refused=0.0):
    """Of different rewrites with R ~ N(0.1, spread²), at λ = 0.02, drawn from ρ_sft."""
    count = max(1, random.binomial(size, 1 - refused))
    worth = random.normal(0.1, spread, (count, 1))
    rewards = worth + random.normal(0, noise, (count, answers))
    raw = random.normal(0, noise, 8)
    zeros = np.zeros(count)
    learned = posterior(tally(list(rewards), [raw]))
    drawn = WeighedCandidates(zeros, zeros, np.arange(count), learned)
    return diagnose(drawn, 0.02, unusable=size - count)


@pytest.mark.parametrize("refused", [0.0, 0.4])
@pytest.mark.parametrize(
    ("spread", "noise", "answers"),
    [
        (0.0, 0.11, 2),  # equal rewrites
        (0.0, 0.11, 8),
        (0.034, 0.11, 2),  # the variances of the default models
        (0.034, 0.11, 8),
        (0.034, 0.0, 2),  # without noise
        (0.014, 0.0, 2),
        (0.02, 0.02, 1),
        (0.02, 0.004, 2),
    ],
)
@pytest.mark.parametrize("size", [8, 32, 64])
def test_the_error_of_log_z_covers_or_is_not_given(size, spread, noise, answers, refused):
    """Holds down: ± 1.96 errors covered 0.37 of equal rewrites, 0.75 without noise at N = 8, and
    refused candidates were left out."""
    random = np.random.default_rng(1)
    log_z = 0.1 / 0.02 + spread**2 / (2 * 0.02**2) + math.log(1 - refused)
    found = [diagnosed(random, size, answers, spread, noise, refused) for _ in range(150)]
    given = [estimate for estimate in found if math.isfinite(estimate.log_z_error)]
    missed = [estimate for estimate in given if not covers(estimate, log_z)]
    assert len(missed) <= 0.16 * len(found)
    assert size > LEAST_ESS or not given
    assert all(estimate.ess >= LEAST_ESS for estimate in given)


def test_equal_rewrites_are_at_no_distance():
    """Holds down: true KL 0 and log Z 5 read as 3.4 and 7.0."""
    random = np.random.default_rng(2)
    found = [diagnosed(random, 16, 2, 0.0, 0.11) for _ in range(200)]
    assert np.median([estimate.kl for estimate in found]) < 0.5
    assert np.median([estimate.log_z for estimate in found]) == pytest.approx(5, abs=0.8)


def test_what_may_not_be_used_counts_as_drawn():
    uniform = np.full(len(STAR), 1 / len(STAR))
    all_usable = diagnose(candidates(SFT, uniform, REWARD), STRENGTH)
    half = diagnose(candidates(SFT, uniform, REWARD), STRENGTH, unusable=len(STAR))
    assert half.size == 2 * all_usable.size
    assert half.log_z == pytest.approx(all_usable.log_z - math.log(2))
    assert half.kl == pytest.approx(all_usable.kl + math.log(2))
    assert half.reward == pytest.approx(all_usable.reward)
    assert half.ess == pytest.approx(all_usable.ess)


def test_an_endless_lambda_gives_the_reference_and_none_the_best():
    drawn = candidates(SFT, SFT, REWARD)
    np.testing.assert_allclose(shares(log_weights(drawn, 1e6)), 1 / len(SFT), rtol=1e-5)
    assert shares(log_weights(drawn, 1e-6)).argmax() == REWARD.argmax()


def test_what_a_draw_reaches_is_worth_its_distance():
    """Holds down: at the default λ and number of answers plain means lost more than they gained."""
    random = np.random.default_rng(4)
    values = {"posterior": [], "plain means": []}
    for _ in range(600):
        worth = random.normal(0, 0.034, 8)
        rewards = worth[:, None] + random.normal(0, 0.11, (8, 2))
        means = {
            "posterior": posterior(tally(list(rewards))).mean,
            "plain means": rewards.mean(axis=1),
        }
        for name, mean in means.items():
            share = shares(mean / 0.02)
            kl = share @ np.log(np.maximum(share, 1e-300) * 8)
            values[name].append(share @ worth - 0.02 * kl)
    assert np.mean(values["posterior"]) > -0.001
    assert np.mean(values["plain means"]) < -0.005


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
    answers = data.draw(
        st.lists(arrays(np.float64, st.integers(1, 3), elements=FINITE), min_size=1)
    )
    places = data.draw(arrays(np.int64, size, elements=st.integers(0, len(answers) - 1)))
    drawn = WeighedCandidates(reference, proposal, places, posterior(tally(answers)))
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
