"""Draws from ρ*, the optimum of Lemma 5.1, for one prompt. Pure numpy, independent of any model.

N candidates x'_i come independently from a proposal q, each with its log-probabilities and with the
rewards of a few answers. Their importance weights

    w_i = ρ_sft(x'_i) exp(R̃_i / λ) / q(x'_i)

turn them into draws from ρ* = ρ_sft exp(R / λ) / Z: by independence Metropolis-Hastings over the
candidates in their order (Tierney 1994), or by importance resampling, which picks one with
probability w_i / Σw (Rubin 1987). Both are exact as N grows; the chain is closer at every N.

**Noise.** R̃ is the posterior mean of R given all answers (`posterior`), not the mean R̂ of a
candidate's own few. The objective is linear in R, so what maximises its expected value given the
answers is Lemma 5.1 with R̃ in the place of R; it is called ρ̃ here. Weights of R̂ would follow
luck wherever its noise is above λ. A rewrite that is drawn again gets new answers, which count
together with its earlier ones; so R̃ approaches R, and ρ̃ approaches ρ*, as N grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.rewriting.posterior import Posterior, Vector

LEAST_ESS = 8.0
"""Effective sample size below which the error of log Z is not known."""


@dataclass(frozen=True)
class WeighedCandidates:
    """N rewrites of one prompt, drawn independently from one proposal, in the order of the draws.

    Attributes:
        reference: log ρ_sft(x'|x), natural; -inf where the reference cannot write it; shape (n,).
        proposal: log q(x'|x), natural; shape (n,).
        places: Which rewrite each is, as equal ones may be drawn; 0 to K - 1, shape (n,).
        worth: What is known about R of the K different rewrites.
    """

    reference: Vector
    proposal: Vector
    places: NDArray[np.int64]
    worth: Posterior

    @property
    def rewards(self) -> Vector:
        """R̃ of each candidate; shape (n,)."""
        rewards: Vector = self.worth.mean[self.places]
        return rewards


@dataclass(frozen=True)
class Diagnostics:
    """What the weights show about ρ*, and how close a draw comes to it.

    Attributes:
        size: N, all that were drawn; those that may not be used count with weight 0.
        ess: Effective sample size (Σw)² / Σw², 1 to N (Kong 1992); 0 if every weight is 0.
        log_z: Estimate of log Z, natural: log Z̃, that of ρ̃.
        log_z_error: Its standard error: the spread of the weights by the delta method, the noise of
            the answers, and what log Z̃ falls short of log Z. Infinite below LEAST_ESS, because so
            few weights do not show how large the others are.
        kl: Estimate of KL(ρ̃‖ρ_sft) = E_ρ̃[R̃]/λ - log Z̃, in nats, not below 0.
        reward: Estimate of E_ρ̃[R].
        objective: λ log Z̃, the value that ρ̃ reaches; ρ* reaches no less.
        distance: 1 / ESS, which to first order in 1/N bounds the total variation between a
            resampled draw and ρ̃: with w of mean 1 under q the law of the draw is
            ρ̃ [1 - (w - E_ρ̃ w) / N], whose distance is E_ρ̃ |w - E_ρ̃ w| / 2N ≤ E_ρ̃ w / N.
            The chain is closer.
        noise: Root mean square of the posterior standard deviation of R / λ over ρ̃.
        reliability: Share of the differences between the R̂ that is R and not noise, over ρ̃.
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
    reliability: float


def log_weights(candidates: WeighedCandidates, strength: float) -> Vector:
    """The log-weight of each candidate, up to a common constant.

    Args:
        candidates: What was drawn.
        strength: λ > 0.

    Returns:
        Shape (n,); -inf for a candidate that the reference cannot write.
    """
    # Differences first: R / λ alone may exceed what a float resolves, its spread need not.
    with np.errstate(over="ignore"):  # at a tiny λ the others go to minus infinity
        exponents = (candidates.rewards - candidates.rewards.max()) / strength
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


def diagnose(candidates: WeighedCandidates, strength: float, unusable: int = 0) -> Diagnostics:
    """Sum up what the candidates say about ρ*.

    Args:
        candidates: What was drawn and may be used, at least one.
        strength: λ > 0.
        unusable: How many more were drawn that may not be used, whose weight is 0.
    """
    weights, worth = log_weights(candidates, strength), candidates.worth
    size = len(weights) + unusable
    best = float(candidates.rewards.max())
    if weights.max() == -math.inf:
        nothing, unknown = -math.inf, math.nan
        return Diagnostics(
            size, 0.0, nothing, math.inf, 0.0, unknown, nothing, 1.0, unknown, unknown
        )
    share = shares(weights)
    by_rewrite = np.zeros(len(worth.mean))
    np.add.at(by_rewrite, candidates.places, share)
    log_mean = float(weights.max() + np.log(np.exp(weights - weights.max()).sum() / size))
    reward, ess = float(by_rewrite @ worth.mean), float(1 / (share @ share))
    with np.errstate(over="ignore"):  # at a tiny λ nothing is known about log Z
        noise = np.sqrt(by_rewrite @ worth.variance) / strength
        spread = _spread(weights, size) if ess >= LEAST_ESS else math.inf
        luck = (np.sqrt(worth.variance_of_mean(by_rewrite)) / strength) ** 2
        error = np.sqrt(spread + luck + noise**4 / 2)
    return Diagnostics(
        size=size,
        ess=ess,
        log_z=best / strength + log_mean,
        log_z_error=float(error),
        kl=max(0.0, (reward - best) / strength - log_mean),
        reward=reward,
        objective=best + strength * log_mean,
        distance=1 / ess,
        noise=float(noise),
        reliability=float(by_rewrite @ worth.reliability),
    )


def _spread(weights: Vector, size: int) -> float:
    """Variance of the log of the mean of `size` weights, those beyond the given ones being 0.

    The larger of two estimates: by the delta method, and for normal log-weights, which know of
    large weights even where none was drawn.
    """
    possible = weights[weights > -math.inf]
    count, share = len(possible), shares(possible)
    seen = (size * (share @ share) - 1) / (size - 1)
    variance = possible.var(ddof=1)
    expected = (variance + variance**2 / 2) / count + (1 - count / size) / count
    return float(max(seen, expected))
