"""The bound of Theorem 6.1, estimated from samples. Pure numpy: knows no model.

    J(π*) - J(π̃_ρ*) ≤ r_max E_x d_TV(π*, π_F) + r_max E_{x, x'~ρ_sft} d_TV(π_F(·|x), π_F(·|x'))
                      - λ E_x KL(ρ*‖ρ_sft)

**The oracle.** π* cannot be sampled; a trained oracle replaces it. The proof uses no property of
π*: the same inequality holds for any policy in its place. So the test is exact for the oracle, and
says nothing about how far the oracle is from π*. Without an oracle, the first term, the sum and the
left side are unknown.

**r_max.** The theorem takes rewards in [0, r_max]. Adding a number to every reward of a prompt
changes neither side (differences of J, ρ* and the KL stay the same), so r_max is the width of the
range of the rewards. Unless it is given, it is the highest minus the lowest observed reward, at
most the true width: it errs low, and so does the right side. Intervals treat it as fixed.

**Total variation**, from y ~ P: the mean of max(0, 1 - Q(y)/P(y)) is unbiased and within [0, 1],
because d_TV(P, Q) is the sum of (P - Q) where P is larger. Rounding errors of log-probabilities
raise it above 0 by less than half their standard deviation. For answers that are cut off after some
tokens it is the distance between the distributions of cut answers, whose rewards are used here.

**KL and J(π̃_ρ*)**, from n rewrites x' ~ ρ_sft with a few answers each: see `estimate_optimum`.
Both err low, by the order of 1/n, and no KL above log n can be observed. The right side and the
left side then err high, by the same amount but for the error of log Z. Noise of R̂ beyond
LARGEST_NOISE λ hides ρ*: J(π̃_ρ*) falls towards J(π̃_ρ_sft) and the KL to 0, and
`bound_remarks` says so.

**The slack**, right minus left side, is what is tested. In it E_ρ*[R] cancels and leaves

    r_max (d_TV(oracle, π_F) + d_TV(π_F(·|x), π_F(·|x'))) + λ log Z(x) - J(oracle).

The estimate of log Z errs low by about Var(w) / 2n for weights w of mean 1, and r_max errs low: so
does the slack. A slack above 0 can be trusted, one below 0 may come from too few rewrites or
rewards. Only if noise hides ρ* can it err high, by at most λ times the true KL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import Estimate, FloatArray, bootstrap_mean
from alignpro_lite.rewriting.rho_star import shares

LARGEST_NOISE = 2.0
"""Standard deviation of R̂ / λ beyond which the correction for noise no longer grows.

The correction is a property of normal noise that is not much wider than λ; without a limit, λ → 0
would weigh the rewrite whose answers vary least instead of the best one."""
PRIOR_DEGREES = 4.0
"""Degrees of freedom that the pooled variance counts for in `mean_rewards`."""


@dataclass(frozen=True)
class Optimum:
    """What samples from ρ_sft say about ρ* for one prompt.

    Attributes:
        reward: Estimate of E_ρ*[R], in the reward's unit.
        kl: Estimate of KL(ρ*‖ρ_sft), in nats, 0 to log n for n rewrites.
        noise: Root mean square of the standard deviation of R̂ / λ over ρ*.
    """

    reward: float
    kl: float
    noise: float


@dataclass(frozen=True)
class OracleTerms:
    """The terms of the oracle for one prompt.

    Attributes:
        variation: Estimate of d_TV(oracle, π_F), 0 to 1.
        reward: Mean reward of its answers.
    """

    variation: float
    reward: float


@dataclass(frozen=True)
class PromptTerms:
    """The terms of one prompt.

    Attributes:
        rewrite_variation: Estimate of E_{x'~ρ_sft} d_TV(π_F(·|x), π_F(·|x')), 0 to 1.
        optimum: What the rewrites say about ρ*.
        oracle: None without an oracle.
        lowest: The lowest reward of any answer to the prompt.
        highest: The highest.
    """

    rewrite_variation: float
    optimum: Optimum
    oracle: OracleTerms | None
    lowest: float
    highest: float


@dataclass(frozen=True)
class Bound:
    """Theorem 6.1 in numbers: means over prompts, with bootstrap intervals over prompts.

    Attributes:
        prompts: Number of prompts.
        strength: λ.
        r_max: Width of the range of rewards.
        r_max_is_seen: Whether it is the range of the observed rewards, at most the true one.
        oracle_variation: d_TV(oracle, π_F), not yet times r_max; None without an oracle.
        rewrite_variation: d_TV(π_F(·|x), π_F(·|x')) over x' ~ ρ_sft, not yet times r_max.
        kl: KL(ρ*‖ρ_sft) in nats, not yet times λ.
        noise: Root mean square of the standard deviation of R̂ / λ over ρ* and the prompts.
        bound: The right side; None without an oracle.
        gap: J(oracle) - J(π̃_ρ*), the left side; None without an oracle.
        slack: Right side minus left side, paired by prompt; None without an oracle.
        is_violated: Whether even the upper end of the slack is below 0; None without an oracle.
    """

    prompts: int
    strength: float
    r_max: float
    r_max_is_seen: bool
    oracle_variation: Estimate | None
    rewrite_variation: Estimate
    kl: Estimate
    noise: float
    bound: Estimate | None
    gap: Estimate | None
    slack: Estimate | None
    is_violated: bool | None


def total_variation(log_p: FloatArray, log_q: FloatArray) -> float:
    """Unbiased estimate of d_TV(P, Q) from samples of P.

    Args:
        log_p: log P(y) of each sample y ~ P, natural; shape (n,).
        log_q: log Q(y), natural, -inf where Q cannot generate y; shape (n,), or (..., n) for the
            mean distance to several Q.

    Returns:
        0 to 1.

    Raises:
        InputError: There is no sample, or a number is not a log-probability.
    """
    if not log_p.size or not np.isfinite(log_p).all() or not (log_q < math.inf).all():
        raise InputError(
            "A total variation needs samples with finite log P and log Q below infinity, found "
            f"{log_p.size} samples, {int((~np.isfinite(log_p)).sum())} of them without log P and "
            f"{int((~(log_q < math.inf)).sum())} without log Q.",
            "Sample from P, and score the samples with both.",
        )
    return float(-np.expm1(np.minimum(log_q - log_p, 0.0)).mean())


def estimate_optimum(rewards: FloatArray, strength: float) -> Optimum:
    """E_ρ*[R] and KL(ρ*‖ρ_sft) = E_ρ*[R]/λ - log Z (Lemma 5.1) by importance weights.

    Half of the answers give the weights exp(R̂/λ), the other half the rewards that are weighted,
    and then the halves swap: the same answers for both would count luck as reward, which adds σ²/λ
    for noise of variance σ². log Z comes from all answers, corrected for that noise, which would
    raise it by σ²/2λ². This is right on average over many rewrites; a draw from a few follows
    `rewriting.posterior`.

    Args:
        rewards: r* of the answers to each rewrite from ρ_sft, shape (rewrites, answers), at least
            two answers.
        strength: λ > 0.

    Raises:
        InputError: There are no rewrites, or fewer than two answers to each.
    """
    if rewards.ndim != 2 or rewards.shape[0] < 1 or rewards.shape[1] < 2:
        raise InputError(
            f"Expected rewards of shape (rewrites, 2 or more answers), found {rewards.shape}.",
            "Sample at least 2 answers to each rewrite.",
        )
    half = rewards.shape[1] // 2
    halves = rewards[:, :half], rewards[:, half:]
    optimal_rewards = []
    for weighing, weighed in (halves, halves[::-1]):
        # The variance, too, is that of the weighing half: the other half must not affect a weight.
        weights = shares(_log_weights(weighing, strength))
        optimal_rewards.append(weights @ weighed.mean(axis=1))
    reward = float(np.mean(optimal_rewards))
    log_weights = _log_weights(rewards, strength)
    highest, share = log_weights.max(), shares(log_weights)
    log_z = float(highest + np.log(np.exp(log_weights - highest).mean()))
    kl = float(np.clip(reward / strength - log_z, 0.0, math.log(len(rewards))))
    noise = float(np.sqrt(share @ mean_rewards(list(rewards))[1])) / strength
    return Optimum(reward, kl, noise)


def _log_weights(rewards: FloatArray, strength: float) -> FloatArray:
    """Estimates of R/λ by which exp is right on average: R̂/λ less half the variance of its noise.

    Args:
        rewards: Shape (rewrites, answers).
        strength: λ > 0.
    """
    mean, variance = mean_rewards(list(rewards))
    noise = np.sqrt(variance) / strength
    corrected: FloatArray = mean / strength - np.minimum(noise, LARGEST_NOISE) ** 2 / 2
    return corrected


def mean_rewards(answers: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """R̂ of each rewrite, its mean reward, and the variance of R̂ as an estimate of R.

    The sample variance of two answers is a poor estimate, so it is shrunk towards the variance
    pooled over all rewrites, which counts for PRIOR_DEGREES degrees of freedom. With one answer
    each there is nothing to pool, and the variance is taken as 0.

    Args:
        answers: Rewards of the answers to each rewrite, at least one each.
    """
    mean = np.array([rewards.mean() for rewards in answers])
    degrees = np.array([len(rewards) - 1 for rewards in answers], np.float64)
    squares = np.array([((rewards - rewards.mean()) ** 2).sum() for rewards in answers])
    if not degrees.any():
        return mean, np.zeros_like(mean)
    pooled = squares.sum() / degrees.sum()
    variance = (squares + PRIOR_DEGREES * pooled) / (degrees + PRIOR_DEGREES)
    return mean, variance / (degrees + 1)


def theorem_bound(
    terms: Sequence[PromptTerms], strength: float, r_max: float | None, seed: int
) -> Bound:
    """Both sides of Theorem 6.1 from the terms of all prompts.

    Args:
        terms: The terms of each prompt, at least two; all with an oracle, or none.
        strength: λ > 0.
        r_max: Width of the range of rewards; None takes that of the observed rewards.
        seed: Of the bootstrap.

    Raises:
        InputError: There are fewer than two prompts, or `r_max` is less than the observed range.
    """
    observed = max(prompt.highest for prompt in terms) - min(prompt.lowest for prompt in terms)
    width = observed if r_max is None else r_max
    if width < observed:
        raise InputError(
            f"r_max is {width:g}, found rewards over a range of {observed:g}.",
            f"Pass at least {observed:g}, or leave it out.",
        )
    rewrite_variation = np.array([prompt.rewrite_variation for prompt in terms])
    kl = np.array([prompt.optimum.kl for prompt in terms])
    oracles = [prompt.oracle for prompt in terms if prompt.oracle is not None]
    oracle_estimate = right_estimate = gap_estimate = slack = None
    if oracles:
        oracle_variation = np.array([oracle.variation for oracle in oracles])
        right = width * (oracle_variation + rewrite_variation) - strength * kl
        gap = np.array([oracle.reward for oracle in oracles])
        gap -= [prompt.optimum.reward for prompt in terms]
        oracle_estimate = bootstrap_mean(oracle_variation, seed)
        right_estimate, gap_estimate = bootstrap_mean(right, seed), bootstrap_mean(gap, seed)
        slack = bootstrap_mean(right - gap, seed)
    return Bound(
        prompts=len(terms),
        strength=strength,
        r_max=width,
        r_max_is_seen=r_max is None,
        oracle_variation=oracle_estimate,
        rewrite_variation=bootstrap_mean(rewrite_variation, seed),
        kl=bootstrap_mean(kl, seed),
        noise=float(np.sqrt(np.mean([prompt.optimum.noise**2 for prompt in terms]))),
        bound=right_estimate,
        gap=gap_estimate,
        slack=slack,
        is_violated=None if slack is None else slack.high < 0,
    )


def bound_table(bound: Bound) -> str:
    """A bound as text for the terminal: every term, both sides, and remarks on them."""
    rows = [
        ("r_max d_TV(oracle, π_F)", bound.r_max, bound.oracle_variation),
        ("r_max d_TV(π_F(·|x), π_F(·|x'))", bound.r_max, bound.rewrite_variation),
        ("- λ KL(ρ*‖ρ_sft)", -bound.strength, bound.kl),
        ("bound", 1.0, bound.bound),
        ("J(oracle) - J(ρ*)", 1.0, bound.gap),
        ("slack", 1.0, bound.slack),
    ]
    lines = [f"{name:<34}{_number(factor, value)}" for name, factor, value in rows]
    head = f"Theorem 6.1, {bound.prompts} prompts, λ = {bound.strength:g}, r_max = {bound.r_max:g}"
    return "\n".join([head, *lines, *bound_remarks(bound)])


def bound_remarks(bound: Bound) -> list[str]:
    """What a reader of a bound has to know, a sentence each."""
    remarks = []
    if bound.r_max_is_seen:
        remarks.append(
            "r_max is the range of the observed rewards, at most the true one: the bound errs low."
        )
    if bound.noise > LARGEST_NOISE:
        remarks.append(
            f"The noise of R̂ is {bound.noise:.0f} λ and hides ρ*: its KL and J are too low. Use "
            "more answers or a larger λ."
        )
    if bound.bound is None:
        remarks.append(
            "Without an oracle, neither the distance to π* nor the bound can be measured: only two "
            "of its three terms are known."
        )
        return remarks
    remarks.append("The oracle replaces π*; how far it is from π* is not known.")
    if bound.bound.low >= bound.r_max:
        remarks.append("The bound is above r_max, which no gap can exceed: it says nothing here.")
    remarks.append(
        "The bound is violated beyond the noise: draw more rewrites, or look for a mistake."
        if bound.is_violated
        else "The bound is not violated beyond the noise."
    )
    return remarks


def _number(factor: float, value: Estimate | None) -> str:
    if value is None:
        return "not measurable without an oracle"
    low, middle, high = sorted(
        factor * number + 0.0  # no minus sign before a zero
        for number in (value.low, value.value, value.high)
    )
    shown = f"{middle:9.4f}  ({low:.4f} to {high:.4f})"
    return shown if factor == 1.0 else f"{shown}  from {value.value:.4f}"
