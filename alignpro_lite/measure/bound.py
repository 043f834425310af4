"""The bound of Theorem 6.1, estimated from samples. Pure numpy: knows no model.

    J(π*) - J(π̃_ρ*) ≤ r_max E_x d_TV(π*, π_F) + r_max E_{x, x'~ρ_sft} d_TV(π_F(·|x), π_F(·|x'))
                      - λ E_x KL(ρ*‖ρ_sft)

**The oracle.** π* cannot be sampled; a trained oracle stands in for it. The proof needs nothing of
π*: the same inequality holds for any policy in its place. So what is tested is exact for the
oracle, and says nothing about how far the oracle itself is from π*. Without one, the first term,
the sum and the left side are unknown.

**r_max.** The theorem takes rewards in [0, r_max]. Adding a number to every reward of a prompt
changes neither side (differences of J, ρ* and the KL stay), so r_max is the width of the range
that the rewards lie in. Unless it is given, it is the highest less the lowest reward seen, which is
at most the true width: it errs low, and with it the right side. Intervals take it as fixed.

**Total variation**, from y ~ P: the mean of max(0, 1 - Q(y)/P(y)) is unbiased and lies in [0, 1],
because d_TV(P, Q) is the sum of (P - Q) where P is larger. Roundings of log-probabilities lift it
off 0 by less than half their standard deviation. Of answers that are cut after some tokens it is
the distance between the distributions of cut answers, the ones whose rewards count here.

**KL and J(π̃_ρ*)**, from n rewrites x' ~ ρ_sft with a few answers each: see `optimum`. Both err low,
by the order of 1/n, and no KL above log n can be seen. The right side and the left side then err
high, by the same amount but for the error of log Z. Noise of R̂ beyond `rho_star.LARGEST_NOISE` λ
hides ρ*: J(π̃_ρ*) falls towards J(π̃_ρ_sft) and the KL to 0, which `remarks` says.

**The slack**, right less left side, is what the test looks at. In it E_ρ*[R] cancels and leaves

    r_max (d_TV(oracle, π_F) + d_TV(π_F(·|x), π_F(·|x'))) + λ log Z(x) - J(oracle).

The estimate of log Z errs low by about Var(w) / 2n for weights w of mean 1, and r_max errs low: so
does the slack. One above 0 can be trusted, one below 0 may come from too few rewrites or rewards.
Only where noise hides ρ* may it err high, by at most λ times the true KL.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import Estimate, bootstrap_mean
from alignpro_lite.rewriting.rho_star import (
    LARGEST_NOISE,
    Candidates,
    diagnose,
    log_weights,
    mean_rewards,
    shares,
)

Matrix: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Optimum:
    """What samples of ρ_sft say about ρ* for one prompt.

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
    """What an oracle adds for one prompt.

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
        highest: The highest one.
    """

    rewrite_variation: float
    optimum: Optimum
    oracle: OracleTerms | None
    lowest: float
    highest: float


@dataclass(frozen=True)
class Bound:
    """Theorem 6.1 with numbers in it; means over prompts, intervals by bootstrap over prompts.

    Attributes:
        prompts: How many.
        strength: λ.
        r_max: Width of the range of rewards.
        r_max_is_seen: Whether it is the range of the rewards seen, a lower bound of the true one.
        oracle_variation: d_TV(oracle, π_F), to be multiplied by r_max; None without an oracle.
        rewrite_variation: d_TV(π_F(·|x), π_F(·|x')) over x' ~ ρ_sft, to be multiplied by r_max.
        kl: KL(ρ*‖ρ_sft) in nats, to be multiplied by λ.
        noise: Root mean square of the standard deviation of R̂ / λ over ρ* and the prompts.
        bound: The right side; None without an oracle.
        gap: J(oracle) - J(π̃_ρ*), the left side; None without an oracle.
        slack: The right side less the left one, paired by prompt; None without an oracle.
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


def total_variation(log_p: Matrix, log_q: Matrix) -> float:
    """Unbiased estimate of d_TV(P, Q) from samples of P.

    Args:
        log_p: log P(y) of each sample y ~ P, natural; shape (n,).
        log_q: log Q(y), natural, -inf where Q cannot write it; shape (n,), or (..., n) for the
            mean distance to several Q.

    Returns:
        0 to 1.

    Raises:
        InputError: There is no sample, or a number is no log-probability.
    """
    if not log_p.size or not np.isfinite(log_p).all() or not (log_q < math.inf).all():
        raise InputError(
            "A total variation needs samples with finite log P and log Q below infinity, found "
            f"{log_p.size} samples, {int((~np.isfinite(log_p)).sum())} of them without log P and "
            f"{int((~(log_q < math.inf)).sum())} without log Q.",
            "Sample from P, and score the samples by both.",
        )
    return float(-np.expm1(np.minimum(log_q - log_p, 0.0)).mean())


def optimum(rewards: Matrix, strength: float) -> Optimum:
    """E_ρ*[R] and KL(ρ*‖ρ_sft) = E_ρ*[R]/λ - log Z (Lemma 5.1) by importance weights.

    One half of the answers gives the weights exp(R̂/λ), the other half the rewards that are
    weighted, then the halves change places: the same answers for both would count luck as reward,
    which adds σ²/λ for noise of variance σ². log Z comes from all answers, corrected for noise as
    in `rho_star`.

    Args:
        rewards: r* of the answers to each rewrite drawn from ρ_sft, shape (rewrites, answers), at
            least two answers.
        strength: λ > 0.

    Raises:
        InputError: There are fewer than two answers, or none.
    """
    if rewards.ndim != 2 or rewards.shape[0] < 1 or rewards.shape[1] < 2:
        raise InputError(
            f"Expected rewards of shape (rewrites, 2 or more answers), found {rewards.shape}.",
            "Sample at least 2 answers to each rewrite.",
        )
    half = rewards.shape[1] // 2
    halves = rewards[:, :half], rewards[:, half:]
    found = []
    for choosing, judging in (halves, halves[::-1]):
        # Its own variance: one from all answers would let those that judge choose as well.
        weighed = _from_reference(choosing)
        found.append(shares(log_weights(weighed, strength)) @ judging.mean(axis=1))
    reward = float(np.mean(found))
    whole = diagnose(_from_reference(rewards), strength)
    kl = float(np.clip(reward / strength - whole.log_z, 0.0, math.log(len(rewards))))
    return Optimum(reward, kl, whole.noise)


def _from_reference(rewards: Matrix) -> Candidates:
    """Rewrites drawn from ρ_sft itself: its probability cancels in every weight."""
    nothing = np.zeros(len(rewards))
    return Candidates(nothing, nothing, mean_rewards(list(rewards)))


def bound(terms: Sequence[PromptTerms], strength: float, r_max: float | None, seed: int) -> Bound:
    """Put the terms of all prompts together.

    Args:
        terms: One a prompt, at least two; all with an oracle, or none.
        strength: λ > 0.
        r_max: Width of the range of rewards; None takes that of the rewards seen.
        seed: Of the bootstrap.

    Raises:
        InputError: There are fewer than two prompts, or `r_max` is less than what was seen.
    """
    seen = max(one.highest for one in terms) - min(one.lowest for one in terms)
    width = seen if r_max is None else r_max
    if width < seen:
        raise InputError(
            f"r_max is {width:g}, found rewards over a range of {seen:g}.",
            f"Pass at least {seen:g}, or leave it out.",
        )
    moved = np.array([one.rewrite_variation for one in terms])
    kl = np.array([one.optimum.kl for one in terms])
    oracles = [one.oracle for one in terms if one.oracle is not None]
    apart = gap = right = slack = None
    if oracles:
        away = np.array([one.variation for one in oracles])
        left = np.array([one.reward for one in oracles]) - [one.optimum.reward for one in terms]
        sides = width * (away + moved) - strength * kl
        apart, gap = bootstrap_mean(away, seed), bootstrap_mean(left, seed)
        right, slack = bootstrap_mean(sides, seed), bootstrap_mean(sides - left, seed)
    return Bound(
        prompts=len(terms),
        strength=strength,
        r_max=width,
        r_max_is_seen=r_max is None,
        oracle_variation=apart,
        rewrite_variation=bootstrap_mean(moved, seed),
        kl=bootstrap_mean(kl, seed),
        noise=float(np.sqrt(np.mean([one.optimum.noise**2 for one in terms]))),
        bound=right,
        gap=gap,
        slack=slack,
        is_violated=None if slack is None else slack.high < 0,
    )


def table(found: Bound) -> str:
    """A bound as text for the terminal: every term, both sides, and what may be said of them."""
    rows = [
        ("r_max d_TV(oracle, π_F)", found.r_max, found.oracle_variation),
        ("r_max d_TV(π_F(·|x), π_F(·|x'))", found.r_max, found.rewrite_variation),
        ("- λ KL(ρ*‖ρ_sft)", -found.strength, found.kl),
        ("bound", 1.0, found.bound),
        ("J(oracle) - J(ρ*)", 1.0, found.gap),
        ("slack", 1.0, found.slack),
    ]
    lines = [f"{name:<34}{_number(factor, value)}" for name, factor, value in rows]
    head = f"Theorem 6.1, {found.prompts} prompts, λ = {found.strength:g}, r_max = {found.r_max:g}"
    return "\n".join([head, *lines, *remarks(found)])


def remarks(found: Bound) -> list[str]:
    """What a reader of a bound has to know, a sentence each."""
    said = []
    if found.r_max_is_seen:
        said.append(
            "r_max is the range of the rewards seen, a lower bound of the true one: the bound errs "
            "low."
        )
    if found.noise > LARGEST_NOISE:
        said.append(
            f"The noise of R̂ is {found.noise:.0f} λ and hides ρ*: its KL and J are too low. More "
            "answers or a larger λ mend that."
        )
    if found.bound is None:
        said.append(
            "Without an oracle the distance to π* cannot be measured, nor the bound: only two of "
            "its three terms are known."
        )
        return said
    said.append("The oracle stands in for π*; how far it is from π* is not known.")
    if found.bound.low >= found.r_max:
        said.append("The bound is above r_max, which no gap can exceed: it says nothing here.")
    said.append(
        "The bound is violated beyond the noise: draw more rewrites, or look for a mistake."
        if found.is_violated
        else "The bound is not violated beyond the noise."
    )
    return said


def _number(factor: float, value: Estimate | None) -> str:
    if value is None:
        return "not measurable without an oracle"
    low, middle, high = sorted(
        factor * number + 0.0  # no minus sign before a zero
        for number in (value.low, value.value, value.high)
    )
    shown = f"{middle:9.4f}  ({low:.4f} to {high:.4f})"
    return shown if factor == 1.0 else f"{shown}  from {value.value:.4f}"
