"""Theorem 6.1: exact on a toy that can be enumerated, and its estimates."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.bound import (
    Optimum,
    OracleTerms,
    PromptTerms,
    bound_table,
    estimate_optimum,
    mean_rewards,
    theorem_bound,
    total_variation,
)
from alignpro_lite.measure.statistics import Estimate
from tests.support.bound_toy import Toy, random_toy

# The theorem itself.


def test_the_theorem_is_never_violated():
    toys = [random_toy(seed) for seed in range(400)]
    for toy in toys:
        assert (toy.gap <= toy.right + 1e-9).all()
    # The test could fail: some of them come close.
    assert min((toy.right - toy.gap).min() / toy.r_max for toy in toys) < 0.1


def test_it_holds_for_any_policy_in_place_of_the_optimum():
    for seed in range(100):
        toy = random_toy(seed)
        other = np.random.default_rng(seed).dirichlet([0.3] * toy.best.shape[1], len(toy.best))
        toy = replace(toy, best=other)
        assert (toy.gap <= toy.right + 1e-9).all()


def test_adding_a_number_to_the_rewards_of_a_prompt_changes_nothing():
    toy = random_toy(3)
    moved = replace(toy, rewards=toy.rewards - toy.rewards.min(axis=1, keepdims=True))
    assert moved.gap == pytest.approx(toy.gap)
    assert moved.kl == pytest.approx(toy.kl)
    assert moved.optimum == pytest.approx(toy.optimum)


def test_in_the_slack_only_log_z_is_left_of_the_optimum():
    toy = random_toy(4)
    apart = toy.r_max * (toy.oracle_variation + toy.rewrite_variation)
    left = toy.strength * toy.log_z - (toy.best * toy.rewards).sum(axis=1)
    assert toy.right - toy.gap == pytest.approx(apart + left)


# Total variation from samples.


def test_equal_distributions_are_0_apart_and_disjoint_ones_1():
    log_p = np.log(np.full(10, 0.1))
    assert total_variation(log_p, log_p) == 0
    assert total_variation(log_p, np.full(10, -math.inf)) == 1
    assert total_variation(log_p, log_p - 300) == pytest.approx(1)
    assert total_variation(log_p, np.stack([log_p, log_p - 300])) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(5))
def test_the_estimate_of_a_total_variation_is_unbiased(seed):
    """Two samples at a time, half of which Q cannot write."""
    random = np.random.default_rng(seed)
    p, q = random.dirichlet([0.5] * 8, 2)
    q = np.where(np.arange(8) < 4, q, 0) / q[:4].sum()
    log_p, log_q = np.log(p), np.log(q, where=q > 0, out=np.full(8, -math.inf))
    draws = random.choice(8, (20_000, 2), p=p)
    found = [total_variation(log_p[pair], log_q[pair]) for pair in draws]
    error = np.std(found) / math.sqrt(len(found))
    assert np.mean(found) == pytest.approx(np.abs(p - q).sum() / 2, abs=float(4 * error + 1e-12))


@pytest.mark.parametrize(
    ("log_p", "log_q"),
    [([], []), ([-math.inf], [0.0]), ([math.nan], [0.0]), ([0.0], [math.nan])],
)
def test_numbers_that_are_not_log_probabilities_are_refused(log_p, log_q):
    with pytest.raises(InputError, match="total variation"):
        total_variation(np.array(log_p), np.array(log_q))


# ρ* from rewrites and a few answers.


def test_the_optimum_from_many_rewrites_is_the_exact_one():
    toy = replace(random_toy(6), strength=0.8)
    random = np.random.default_rng(0)
    chosen = random.choice(toy.reference.shape[1], 40_000, p=toy.reference[0])
    found = estimate_optimum(np.repeat(toy.worth[0, chosen][:, None], 2, axis=1), toy.strength)
    assert found.reward == pytest.approx(toy.reached[0], abs=0.02)
    assert found.kl == pytest.approx(toy.kl[0], abs=0.02)


def test_mean_rewards_by_hand():
    mean, variance = mean_rewards(
        [np.array([0.0, 2.0]), np.array([1.0]), np.array([3.0, 3.0, 3.0])]
    )
    assert mean == pytest.approx([1, 1, 3])
    pooled = 2 / 3  # squares 2, 0 and 0; degrees of freedom 1, 0 and 2
    expected = [(2 + 4 * pooled) / 5 / 2, pooled, 4 * pooled / 6 / 3]
    assert variance == pytest.approx(expected)
    assert mean_rewards([np.array([1.0]), np.array([2.0])])[1] == pytest.approx([0, 0])


def test_lucky_answers_do_not_count_as_reward():
    """Holds down: rewrites that are all alike, weighed and judged by the same noisy answers."""
    random = np.random.default_rng(1)
    found = [estimate_optimum(random.normal(0, 2, (16, 4)), 1.0) for _ in range(2000)]
    assert np.mean([optimum.reward for optimum in found]) == pytest.approx(0, abs=0.1)
    assert np.mean([optimum.kl for optimum in found]) < 0.25


def test_a_kl_stays_where_it_can_be_seen_whatever_the_noise():
    """Holds down: answers that vary by 20 λ made it -10 nats, and the bound larger by as much."""
    random = np.random.default_rng(3)
    for _ in range(200):
        found = estimate_optimum(random.normal(0, 1, (8, 4)), 0.02)
        assert 0 <= found.kl <= math.log(8)
        assert found.noise > 10
    best = np.repeat(np.arange(8.0)[:, None], 4, axis=1)
    assert estimate_optimum(best, 1e-3).kl == pytest.approx(math.log(8))


def test_one_answer_cannot_choose_and_judge():
    with pytest.raises(InputError, match="2 or more answers"):
        estimate_optimum(np.zeros((4, 1)), 1.0)


# All terms together.


def sampled_terms(toy: Toy, place: int, random: np.random.Generator) -> PromptTerms:
    """The terms of a prompt of a toy from samples: 64 rewrites, 8 answers to each."""
    target, rewards = toy.target[place], toy.rewards[place]
    rewrites = random.choice(len(toy.reference[place]), 64, p=toy.reference[place])
    plain = random.choice(rewards.size, 64, p=target[0])
    answers = np.array([random.choice(rewards.size, 8, p=target[rewrite]) for rewrite in rewrites])
    judged = random.choice(rewards.size, 64, p=toy.best[place])
    best, log_target = np.log(toy.best[place, judged]), np.log(target)
    return PromptTerms(
        rewrite_variation=total_variation(log_target[0, plain], log_target[rewrites][:, plain]),
        optimum=estimate_optimum(rewards[answers], toy.strength),
        oracle=OracleTerms(
            total_variation(best, log_target[0, judged]), float(rewards[judged].mean())
        ),
        lowest=float(rewards.min()),
        highest=float(rewards.max()),
    )


def test_the_estimated_bound_is_the_exact_one():
    toy = replace(random_toy(11, prompts=150), strength=2.0)
    random = np.random.default_rng(2)
    found = theorem_bound(
        [sampled_terms(toy, place, random) for place in range(150)], 2.0, None, seed=0
    )
    assert found.r_max == pytest.approx(toy.r_max)
    exact = {
        "rewrite_variation": toy.rewrite_variation,
        "oracle_variation": toy.oracle_variation,
        "kl": toy.kl,
        "bound": toy.right,
        "gap": toy.gap,
        "slack": toy.right - toy.gap,
    }
    for name, values in exact.items():
        estimate = getattr(found, name)
        assert estimate.low <= values.mean() <= estimate.high, name
    assert found.is_violated is False
    assert "not violated" in bound_table(found)


def terms(slack: float) -> PromptTerms:
    """A prompt with J(ρ*) = 0, KL = 1, and distances of 0.25 each."""
    return PromptTerms(0.25, Optimum(0.0, 1.0, 0.1), OracleTerms(0.25, 1.5 - slack), -1.0, 3.0)


def test_every_number_by_hand():
    """r_max = 4, so the right side is 4 (0.25 + 0.25) - 0.5 = 1.5."""
    found = theorem_bound([terms(0.5), terms(1.0)], 0.5, None, seed=0)
    assert (found.r_max, found.bound) == (4, Estimate(1.5, 1.5, 1.5))
    assert found.gap == Estimate(0.75, 0.5, 1.0)
    assert found.slack == Estimate(0.75, 0.5, 1.0)
    assert theorem_bound([terms(0.5), terms(1.0)], 0.5, 8.0, seed=0).bound == Estimate(
        3.5, 3.5, 3.5
    )


def test_a_violation_is_one_beyond_the_noise():
    assert theorem_bound([terms(-0.5), terms(-1.0)], 0.5, None, seed=0).is_violated
    assert not theorem_bound([terms(-0.5), terms(0.1)], 0.5, None, seed=0).is_violated
    assert "is violated" in bound_table(
        theorem_bound([terms(-0.5), terms(-1.0)], 0.5, None, seed=0)
    )


def test_without_an_oracle_the_bound_is_unknown_and_says_so():
    found = theorem_bound([replace(terms(0), oracle=None)] * 2, 0.5, None, seed=0)
    assert found.bound is found.gap is found.slack is found.oracle_variation is None
    assert found.is_violated is None
    assert "not measurable without an oracle" in bound_table(found)
    assert found.rewrite_variation.value == 0.25


def test_a_bound_above_every_gap_says_so():
    vacuous = theorem_bound([replace(terms(0), rewrite_variation=1.0)] * 2, 0.5, None, seed=0)
    assert "says nothing" in bound_table(vacuous)
    assert "says nothing" not in bound_table(theorem_bound([terms(0)] * 2, 0.5, None, seed=0))


def test_a_remark_tells_of_noise_that_hides_the_optimum():
    noisy = replace(terms(0), optimum=Optimum(0.0, 1.0, 12.0))
    assert "noise of R̂ is 12 λ" in bound_table(theorem_bound([noisy] * 2, 0.5, None, seed=0))
    assert "noise of R̂" not in bound_table(theorem_bound([terms(0)] * 2, 0.5, None, seed=0))


def test_a_range_narrower_than_the_rewards_is_refused():
    with pytest.raises(InputError, match="r_max is 2, found rewards over a range of 4"):
        theorem_bound([terms(0)] * 2, 0.5, 2.0, seed=0)


def test_a_bound_is_plain_data():
    found = theorem_bound([terms(0.5), terms(1.0)], 0.5, None, seed=0)
    assert json.loads(json.dumps(asdict(found)))["slack"]["value"] == 0.75
