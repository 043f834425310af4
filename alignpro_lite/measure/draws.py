"""The law of a draw from weighed candidates, and how far it takes a rewrite from ρ_sft."""

from __future__ import annotations

import numpy as np

from alignpro_lite.measure.statistics import FloatArray

_ORDERS = 32
"""Random orders in `draw_shares`, each with all its rotations."""


def chain_shares(weights: FloatArray) -> FloatArray:
    """Probability that the chain of `rho_star.metropolis_hastings` ends at each candidate.

    The chain goes through the candidates once, in their order, and is given its weights; so its law
    is a sum over where it stood before, and no chain has to be run.

    Args:
        weights: log w of each candidate, shape (..., n), n ≥ 1; -inf for one that is never
            accepted. Leading axes are independent chains.

    Returns:
        Same shape, summing to 1 along the last axis.
    """
    shares = np.zeros_like(weights)
    shares[..., 0] = 1.0
    # A weight of -inf is never accepted, not even after another one of -inf.
    finite = np.where(np.isneginf(weights), np.finfo(np.float64).min, weights)
    for place in range(1, weights.shape[-1]):
        new, old = finite[..., place, None], finite[..., :place]
        accepts = np.exp(np.minimum(new - old, 0.0))
        accepts[np.isneginf(weights[..., place])] = 0.0
        moved = shares[..., :place] * accepts
        shares[..., :place] -= moved
        shares[..., place] = moved.sum(axis=-1)
    return shares


def draw_shares(weights: FloatArray) -> FloatArray:
    """Probability that a draw takes each candidate, whatever their order was.

    Candidates come independently from one proposal, so every order of them is as likely as the one
    they came in. The mean over orders has the same law of x' and less noise.

    Args:
        weights: log w, shape (n,).

    Returns:
        Shape (n,), summing to 1.
    """
    count = len(weights)
    random = np.random.default_rng(0)
    orders = np.array([random.permutation(count) for _ in range(_ORDERS)])
    turned = np.concatenate([np.roll(orders, turn, axis=1) for turn in range(count)])
    shares = np.zeros((len(turned), count))
    np.put_along_axis(shares, turned, chain_shares(weights[turned]), axis=1)
    mean: FloatArray = shares.mean(axis=0)
    return mean


def draw_kl(shares: FloatArray, log_ratios: FloatArray) -> float:
    """Estimate, without bias, an upper limit of KL(draw‖ρ_sft) from one set of candidates, in nats.

    Let n candidates come from q, and let a draw take number i with probability p_i, whatever p
    rests on. Its density is d(x') = q(x') E[n p_I | x_I = x'] for a random place I. Because t log t
    is convex, KL(d‖q) ≤ E Σ p_i log(n p_i), and so

        KL(d‖ρ_sft) ≤ E Σ p_i [log(n p_i) + log q(x_i) - log ρ_sft(x_i)].

    The sum is what is returned, so its mean over prompts is at least the mean KL; a single one may
    be below 0. It is at most log n plus the log-ratio of what is drawn.

    Args:
        shares: p, shape (n,), summing to 1. The less it depends on the order of the candidates, the
            closer the limit.
        log_ratios: log q(x') - log ρ_sft(x') of each candidate, natural; shape (n,).
    """
    drawn = shares > 0
    chances = shares[drawn]
    return float(chances @ (np.log(chances * len(shares)) + log_ratios[drawn]))
