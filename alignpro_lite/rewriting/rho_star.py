"""Draws from ρ*, the optimum of Lemma 5.1, for one prompt. Pure numpy, independent of any model.

N candidates x'_i come independently from a proposal q, each with its log-probabilities and an
estimate R̂_i of R(x, x'_i), the mean reward of a few answers. Their importance weights

    w_i = ρ_sft(x'_i) exp(R̂_i / λ) / q(x'_i)

turn them into draws from ρ* = ρ_sft exp(R / λ) / Z: by independence Metropolis-Hastings over the
candidates in their order (Tierney 1994), or by importance resampling, which picks one with
probability w_i / Σw (Rubin 1987). Both are exact as N grows; the chain is closer at every N.

**Noise.** exp is convex: E exp(R̂ / λ) = exp(R / λ + σ² / 2λ²) for normal noise of variance σ², so
rewrites whose answers vary more are drawn too often. The correction lowers each noisy exponent by
half its variance, after which the weights are right on average and the chain is a pseudo-marginal
one, exact as N grows (Andrieu and Roberts 2009). The penalty method (Ceperley and Dewing 1999)
lowers the difference of two exponents by half the sum of their variances. That is right if the
noise of both is drawn anew at every comparison, and wrong here, where a candidate keeps its
answers; docs/sampling.md has the figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LARGEST_NOISE = 2.0
"""Standard deviation of R̂ / λ beyond which the correction no longer grows.

The correction is a property of normal noise that is not much wider than λ; without a limit, λ → 0
would return the candidate whose answers vary least instead of the best one."""
PRIOR_DEGREES = 4.0
"""Degrees of freedom that the pooled variance counts for in `mean_rewards`."""


@dataclass(frozen=True)
class Candidates:
    """N rewrites of one prompt, drawn independently from one proposal, in the order of the draws.

    Attributes:
        reference: log ρ_sft(x'|x), natural; -inf where the reference cannot write it; shape (n,).
        proposal: log q(x'|x), natural; shape (n,).
        rewards: R̂, the mean over the answers of each candidate; shape (n,).
        variance: Of R̂ as an estimate of R; shape (n,).
    """

    reference: Vector
    proposal: Vector
    rewards: Vector
    variance: Vector


@dataclass(frozen=True)
class Diagnostics:
    """What the weights show about ρ*, and how close a draw comes to it.

    Attributes:
        size: N.
        ess: Effective sample size (Σw)² / Σw², 1 to N (Kong 1992); 0 if every weight is 0.
        log_z: Estimate of log Z, natural.
        log_z_error: Its standard error by the delta method; infinite for one candidate.
        kl: Estimate of KL(ρ*‖ρ_sft) = E_ρ*[R]/λ - log Z, in nats, not below 0.
        reward: Estimate of E_ρ*[R].
        objective: λ log Z, the value that ρ* reaches.
        distance: 1 / ESS, which to first order in 1/N bounds the total variation between a
            resampled draw and ρ*: with w of mean 1 under q the law of the draw is
            ρ* [1 - (w - E_ρ* w) / N], whose distance is E_ρ* |w - E_ρ* w| / 2N ≤ E_ρ* w / N.
            The chain is closer.
        noise: Root mean square of the standard deviation of R̂ / λ over ρ*.
    """

    size: int
    ess: float
    log_z: float
    log_z_error: float
    kl: float
    reward: float
    objective: float
    distance: float
    noise: float


def mean_rewards(answers: Sequence[Vector]) -> tuple[Vector, Vector]:
    """Mean reward of each candidate and its variance, as in `Candidates`.

    The sample variance of two answers is a poor estimate, so it is shrunk towards the variance
    pooled over all candidates, which counts for PRIOR_DEGREES degrees of freedom. With one answer
    each there is nothing to pool: the variance is taken as 0, which is right if it is the same for
    all, because the weights only matter up to a factor.

    Args:
        answers: Rewards of the answers of each candidate, at least one each.
    """
    mean = np.array([rewards.mean() for rewards in answers])
    degrees = np.array([len(rewards) - 1 for rewards in answers], np.float64)
    squares = np.array([((rewards - rewards.mean()) ** 2).sum() for rewards in answers])
    if not degrees.any():
        return mean, np.zeros_like(mean)
    pooled = squares.sum() / degrees.sum()
    variance = (squares + PRIOR_DEGREES * pooled) / (degrees + PRIOR_DEGREES)
    return mean, variance / (degrees + 1)


def log_weights(candidates: Candidates, strength: float) -> Vector:
    """The log-weight of each candidate, up to a common constant, corrected for noise.

    Args:
        candidates: What was drawn.
        strength: λ > 0.

    Returns:
        Shape (n,); -inf for a candidate that the reference cannot write.
    """
    # Differences first: R / λ alone may exceed what a float resolves, its spread need not.
    exponents = (candidates.rewards - candidates.rewards.max()) / strength
    noise = np.sqrt(candidates.variance) / strength
    exponents = exponents - np.minimum(noise, LARGEST_NOISE) ** 2 / 2
    possible = np.isfinite(candidates.reference) & np.isfinite(candidates.proposal)
    ratios = np.full(len(exponents), -math.inf)
    np.subtract(candidates.reference, candidates.proposal, out=ratios, where=possible)
    weights: Vector = ratios + exponents
    return weights


def metropolis_hastings(weights: Vector, random: np.random.Generator) -> NDArray[np.int64]:
    """Run chains over the candidates in their order, beginning with the first.

    A proposal is accepted with probability min(1, w_new / w_current). What a chain does up to
    candidate i does not depend on how many follow.

    Args:
        weights: log w, shape (..., n), n ≥ 1; leading axes are independent chains.
        random: One uniform number is drawn for each candidate.

    Returns:
        Index of the candidate after each proposal, shape (..., n): 0 comes first, the draw last.
    """
    thresholds = np.log(random.random(weights.shape))
    states = np.zeros(weights.shape, np.int64)
    current = weights[..., 0]
    for place in range(1, weights.shape[-1]):
        new = weights[..., place]
        # Not their difference, which is not a number where both are -inf.
        accepts = new > current + thresholds[..., place]
        states[..., place] = np.where(accepts, place, states[..., place - 1])
        current = np.where(accepts, new, current)
    return states


def resample(weights: Vector, random: np.random.Generator) -> NDArray[np.int64]:
    """Importance resampling: indices with probability w / Σw; any, where every weight is 0.

    The rival that independence Metropolis–Hastings is measured against, in tests and in
    `benchmarks/samplers.py`; requests do not use it.

    Args:
        weights: log w, shape (..., n), n ≥ 1; leading axes are independent draws.
        random: One uniform number is drawn for each draw.

    Returns:
        Shape (...).
    """
    steps = np.cumsum(shares(weights), axis=-1)
    uniform = random.random(weights.shape[:-1])[..., None] * steps[..., -1:]
    drawn: NDArray[np.int64] = (steps <= uniform).sum(axis=-1)
    return drawn


def shares(weights: Vector) -> Vector:
    """Give w / Σw along the last axis, from log w; all alike where every weight is 0."""
    highest = weights.max(axis=-1, keepdims=True)
    raised = np.exp(weights - np.where(highest == -math.inf, 0.0, highest))
    raised = np.where(highest == -math.inf, 1.0, raised)
    normalised: Vector = raised / raised.sum(axis=-1, keepdims=True)
    return normalised


def diagnose(candidates: Candidates, strength: float) -> Diagnostics:
    """Sum up what the candidates say about ρ*.

    Args:
        candidates: What was drawn, at least one.
        strength: λ > 0.
    """
    weights = log_weights(candidates, strength)
    size = len(weights)
    best = float(candidates.rewards.max())
    if weights.max() == -math.inf:
        return Diagnostics(size, 0.0, -math.inf, math.inf, 0.0, math.nan, -math.inf, 1.0, math.nan)
    share = shares(weights)
    relative = share * size  # w over its mean
    log_mean = float(weights.max() + np.log(np.exp(weights - weights.max()).mean()))
    log_z = best / strength + log_mean
    reward = float(share @ candidates.rewards)
    spread = relative.std(ddof=1) if size > 1 else math.inf
    return Diagnostics(
        size=size,
        ess=float(1 / (share @ share)),
        log_z=log_z,
        log_z_error=float(spread / math.sqrt(size)),
        kl=max(0.0, (reward - best) / strength - log_mean),
        reward=reward,
        objective=best + strength * log_mean,
        distance=float(share @ share),
        noise=float(np.sqrt(share @ candidates.variance)) / strength,
    )
