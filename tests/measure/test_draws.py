"""The law of a draw, against chains that are run, and its KL, against one that can be computed."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from alignpro_lite.measure.draws import chain_shares, draw_kl, draw_shares
from alignpro_lite.rewriting.rho_star import metropolis_hastings

NEVER = -math.inf


@pytest.mark.parametrize(
    "weights",
    [
        (0.0,),
        (0.0, math.log(3)),
        (1.0, -2.0, 0.5, 0.0, 3.0, -1.0),
        (NEVER, 0.0, 1.0, NEVER),
        (NEVER, NEVER),
        (0.0, -800.0, 700.0),
    ],
)
def test_the_law_is_that_of_the_chains_that_requests_run(weights):
    law = chain_shares(np.array(weights))
    chains = np.tile(np.array(weights), (200_000, 1))
    states = metropolis_hastings(chains, np.random.default_rng(0))[:, -1]
    drawn = np.bincount(states, minlength=len(weights)) / len(states)
    assert law.sum() == pytest.approx(1.0)
    assert law == pytest.approx(drawn, abs=0.005)


def test_two_candidates_by_hand():
    assert chain_shares(np.log([1.0, 3.0])) == pytest.approx([0.0, 1.0])
    assert chain_shares(np.log([3.0, 1.0])) == pytest.approx([2 / 3, 1 / 3])


def drawn_law(reference, proposal, rewards, strength, count):
    """The exact law of a draw over three rewrites, and the mean of `draw_kl`, by enumeration."""
    law, bound = np.zeros(3), 0.0
    for places in np.ndindex(*(3,) * count):
        chosen = list(places)
        chance = math.prod(proposal[place] for place in places)
        log_ratios = np.log(proposal[chosen]) - np.log(reference[chosen])
        shares = draw_shares(rewards[chosen] / strength - log_ratios)
        np.add.at(law, chosen, chance * shares)
        bound += chance * draw_kl(shares, log_ratios)
    return law, bound


@pytest.mark.parametrize("strength", [0.005, 0.1, 0.5, 50.0])
@pytest.mark.parametrize("count", [1, 2, 4, 6])
@pytest.mark.parametrize("proposes", ["ρ_sft", "ρ_θ"])
def test_the_mean_is_at_least_the_kl_of_the_draw(strength, count, proposes):
    """Holds down: the axis of the dial was neither KL(ρ*‖ρ_sft) nor that of the draw."""
    reference = np.array([0.6, 0.3, 0.1])
    proposal = reference if proposes == "ρ_sft" else np.array([0.2, 0.5, 0.3])
    law, bound = drawn_law(reference, proposal, np.array([0.0, 0.1, 0.3]), strength, count)
    assert law.sum() == pytest.approx(1.0)
    exact = float(law @ np.log(law / reference))
    assert bound >= exact - 1e-9
    largest = math.log(count) + float(np.log(proposal / reference).max())
    assert bound <= largest + 1e-9


def test_one_candidate_is_as_far_as_what_proposes_it():
    """With nothing to choose, the limit is KL(q‖ρ_sft) itself."""
    reference, proposal = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3])
    _, bound = drawn_law(reference, proposal, np.zeros(3), 0.1, 1)
    assert bound == pytest.approx(float(proposal @ np.log(proposal / reference)))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_order_of_candidates_changes_no_law_of_what_is_drawn(count):
    """Over all orders as likely as each other, the mean over orders draws what the chain draws."""
    weights = np.random.default_rng(count).normal(0, 1.5, count)
    every = np.array(list(permutations(range(count))))
    shares = np.zeros(count)
    for order in every:
        shares[order] += chain_shares(weights[order]) / len(every)
    assert draw_shares(weights) == pytest.approx(shares, abs=0.03)
    assert draw_shares(np.zeros(count)) == pytest.approx(np.full(count, 1 / count))
