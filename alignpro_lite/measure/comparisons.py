"""What a table of systems needs beyond two arms: p values, length, shares of a gain, win matrices.

Arms are as in `alignpro_lite.measure.statistics`: rewards of shape (prompts, answers), row i of all
arms belongs to the same prompt, and prompts are the independent units of every interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import (
    LEVEL,
    RESAMPLES,
    Estimate,
    Matrix,
    Vector,
    bootstrap_mean,
    wilson,
    within_prompt_variances,
)

_AT_ONCE = 500
"""Resamples held in memory together; RESAMPLES is a multiple of it."""
_SAME = 1e-12
"""Means this close are equal: the order of a sum changes its last digits."""
_RIDGE = 1e-4
"""Penalty β²/2 of a pair's mean loss: moves an ordinary fit by less than 0.001 of its value."""
_NEWTON_STEPS = 500
"""The ridge keeps |β| below 118, and a step is up to 0.7 long, so these always suffice."""
_Z = NormalDist().inv_cdf((1 + LEVEL) / 2)

_REWARDS = ("prompts", "answers")


@dataclass(frozen=True)
class Outcomes:
    """How a first arm fares against a second one, prompt by prompt.

    Attributes:
        win: Share of prompts on which the first arm's mean reward is higher.
        tie: Share on which it is equal.
        loss: Share on which it is lower.
    """

    win: Estimate
    tie: Estimate
    loss: Estimate


def outcomes(first: Matrix, second: Matrix) -> Outcomes:
    """Count the prompts that an arm wins, ties and loses by its mean reward.

    Args:
        first: Rewards, shape (prompts, answers).
        second: Same shape.

    Returns:
        Three shares that sum to 1, each with its own Wilson interval; means that differ by at
        most 1e-12 are a tie.

    Raises:
        InputError: The shapes do not fit, or a reward is not finite.
    """
    _require([first, second], _REWARDS)
    gains = first.mean(axis=1) - second.mean(axis=1)

    def share(which: NDArray[np.bool_]) -> Estimate:
        return wilson(int(which.sum()), gains.size)

    return Outcomes(share(gains > _SAME), share(np.abs(gains) <= _SAME), share(gains < -_SAME))


def sign_flip_p(differences: Vector, seed: int) -> float:
    """Two-sided p value of no difference, by flipping signs (Fisher 1935; Pitman 1937).

    If the arms do not differ, each difference could as well have had the other sign. The p value
    is the share of random signs whose mean is at least as far from 0 as the one found, the one
    found counted among them (Phipson and Smyth 2010): so it is never 0, and it is right for any
    number of prompts. Where only the mean is 0, and differences lie skew around it, it is right
    for many prompts (Romano 1990): for exponential ones, 0.05 is really 0.09 at 20 prompts and
    0.07 at 40.

    Args:
        differences: A number a prompt, first arm minus second, shape (prompts,).
        seed: Of the signs.

    Returns:
        1 / (RESAMPLES + 1) to 1.

    Raises:
        InputError: There is no difference, or one is not finite.
    """
    _require([differences], ("prompts",))
    random = np.random.default_rng(seed)
    # Sums of the same numbers in another order must not fall below the one found by rounding.
    found = abs(float(differences.sum())) - _SAME * float(np.abs(differences).sum())
    size = (_AT_ONCE, differences.size)
    as_far = 0
    for _ in range(RESAMPLES // _AT_ONCE):
        signs = 2.0 * random.integers(2, size=size) - 1
        as_far += int((np.abs(signs @ differences) >= found).sum())
    return (as_far + 1) / (RESAMPLES + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for how many there are (Holm 1979).

    Calling every difference real whose adjusted value is at most 0.05 calls any that is not real
    so with a probability of at most 0.05, however the tests depend on each other.

    Args:
        p_values: Each 0 to 1, any number of them.

    Returns:
        Adjusted values in the same order, none below its own p value, at most 1.

    Raises:
        InputError: One is not between 0 and 1.
    """
    values = np.array(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise InputError(
            f"Expected p values between 0 and 1, found {list(p_values)}.", "Pass p values only."
        )
    order = np.argsort(values, kind="stable")
    left = np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(left * values[order]), 1.0)
    return [float(value) for value in adjusted]


def length_controlled_win(
    first: Matrix, second: Matrix, first_words: Matrix, second_words: Matrix
) -> Estimate:
    """Probability that an answer of the first arm beats one of the second of the same length.

    As length-controlled AlpacaEval (Dubois et al. 2024), without its term for the difficulty of
    an instruction: a logistic regression of who wins, a tie counting half, on an intercept and
    tanh(Δ / sd(Δ)), Δ being the difference in words, over all pairs of answers to one prompt.
    The result is the logistic of the intercept, which is what is left at Δ = 0. Where Δ is the
    same in all pairs, its effect cannot be told from the arms', and nothing is taken off.

    Args:
        first: Rewards, shape (prompts, answers), at least two prompts.
        second: Same shape.
        first_words: Words of the first arm's answers, same shape.
        second_words: Words of the second arm's answers, same shape.

    Returns:
        A probability. Its interval is normal on the scale of log-odds, with the sandwich variance
        of Liang and Zeger (1986) clustered by prompt; a little too narrow for few prompts, it
        holds the truth in about 0.90 of cases at 10 of them and 0.94 at 60. Where all pairs end
        alike, it is Wilson's over prompts. Where the longer answer always wins, so that length
        explains all, the value says nothing.

    Raises:
        InputError: The shapes do not fit, or a number is not finite.
    """
    _require([first, second, first_words, second_words], _REWARDS, prompts=2)
    prompts = first.shape[0]
    wins = _pair_wins(first, second)
    if wins.min() == wins.max():
        return wilson(float(wins[0, 0]) * prompts, prompts)
    longer = _pairs(first_words, second_words)
    spread = float(longer.std())
    lengths = np.tanh(longer / spread) if spread else np.zeros_like(longer)
    intercept, error = _clustered_logit(wins, lengths)
    return Estimate(
        _logistic(intercept),
        _logistic(intercept - _Z * error),
        _logistic(intercept + _Z * error),
    )


def _clustered_logit(wins: Matrix, lengths: Matrix) -> tuple[float, float]:
    """Intercept of wins on lengths, both (prompts, pairs), and its standard error by prompt."""
    prompts, pairs = wins.shape
    design = np.stack([np.ones_like(lengths), lengths], axis=2)
    coefficients, curvature = _fit(design.reshape(-1, 2), wins.ravel())
    misses = wins - 1 / (1 + np.exp(-design @ coefficients))
    scores = np.einsum("gp,gpk->gk", misses, design) / (prompts * pairs)
    bread = np.linalg.inv(curvature)
    covariance = bread @ (scores.T @ scores) @ bread * prompts / (prompts - 1)
    return float(coefficients[0]), math.sqrt(covariance[0, 0])


def _fit(design: Matrix, wins: Vector) -> tuple[Vector, Matrix]:
    """Coefficients of the logistic regression and the curvature of its mean loss there."""
    count = wins.size
    coefficients = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        chances = 1 / (1 + np.exp(-design @ coefficients))
        slope = design.T @ (chances - wins) / count + _RIDGE * coefficients
        weights = (chances * (1 - chances))[:, None]
        curvature = (weights * design).T @ design / count + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        length = float(np.linalg.norm(step))
        # Rows of the design are at most √2 long; a step up to 1/√2 surely lowers the loss
        # (Bach 2010, proposition 1), where a whole one may leap over the minimum.
        coefficients -= step / max(1.0, length * math.sqrt(2))
        if length < 1e-9:
            break
    return coefficients, curvature


def recovered(system: Matrix, baseline: Matrix, oracle: Matrix, seed: int) -> Estimate | None:
    """Share of the oracle's gain that a system has: (system - baseline) / (oracle - baseline).

    Args:
        system: Rewards, shape (prompts, answers), at least two prompts.
        baseline: Same shape.
        oracle: Same shape.
        seed: Of the resampling.

    Returns:
        A ratio of mean gains, below 0 for a system that is worse than the baseline and above 1
        for one that is better than the oracle, with its paired percentile bootstrap interval over
        prompts. None if the interval of the oracle's own gain reaches down to 0: a share of what
        may be nothing means nothing.

    Raises:
        InputError: The shapes do not fit, or a reward is not finite.
    """
    _require([system, baseline, oracle], _REWARDS, prompts=2)
    base = baseline.mean(axis=1)
    gains = np.stack([system.mean(axis=1) - base, oracle.mean(axis=1) - base], axis=1)
    random = np.random.default_rng(seed)
    size = (_AT_ONCE, gains.shape[0])
    parts = [
        gains[random.integers(gains.shape[0], size=size)].mean(axis=1)
        for _ in range(RESAMPLES // _AT_ONCE)
    ]
    ours, its = np.concatenate(parts).T
    if np.quantile(its, (1 - LEVEL) / 2) <= 0:
        return None
    # As the oracle's gain falls to 0, the share grows without end, and beyond 0 it stays there.
    # Fewer resamples than the tail beyond a limit do so: the nearest quantile never lands there.
    shares = np.copysign(np.inf, ours)
    np.divide(ours, its, out=shares, where=its > 0)
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    value = gains[:, 0].mean() / gains[:, 1].mean()
    return Estimate(float(value), float(low), float(high))


def between_prompt_variance(rewards: Matrix) -> float:
    """Variance of what prompts are worth, by the one-way random effects model (Fisher 1925).

    The means of few answers also differ by the noise of those answers: their variance less the
    variance within a prompt over the number of answers is unbiased.

    Args:
        rewards: Shape (prompts, answers), at least (2, 2).

    Returns:
        A variance in the square of the reward's unit; 0 where the noise explains all.

    Raises:
        InputError: There are fewer prompts or answers, or a reward is not finite.
    """
    _require([rewards], _REWARDS, prompts=2)
    noise = float(within_prompt_variances(rewards).mean() / rewards.shape[1])
    return max(float(rewards.mean(axis=1).var(ddof=1)) - noise, 0.0)


def agreement(first: Matrix, second: Matrix, seed: int) -> Estimate:
    """Share of pairs of answers of which two judges prefer the same one.

    Args:
        first: How much higher one judge scores the first answer of a pair than the second, in
            any unit, shape (prompts, pairs); the pairs of a prompt need not be independent.
        second: The same of the other judge, same shape.
        seed: Of the resampling.

    Returns:
        A share with its bootstrap interval over prompts; a pair that either judge ties counts
        half, so that a judge that always ties agrees with any other as often as a coin.

    Raises:
        InputError: The shapes do not fit, or a margin is not finite.
    """
    _require([first, second], ("prompts", "pairs"), prompts=2)
    same = (np.sign(first) * np.sign(second) + 1) / 2
    return bootstrap_mean(same.mean(axis=1), seed)


def answer_win_matrix(arms: Sequence[Matrix]) -> Matrix:
    """How often an answer of one arm beats one of another arm to the same prompt.

    Args:
        arms: Rewards of each arm, each of shape (prompts, answers).

    Returns:
        Shape (arms, arms): place (i, j) is the probability that an answer of arm i beats one of
        arm j, ties half (`statistics.answer_win_rate`). It and (j, i) sum to 1; 0.5 on the
        diagonal.

    Raises:
        InputError: There is no arm, the shapes do not fit, or a reward is not finite.
    """
    _require(arms, _REWARDS)
    rates = np.full((len(arms), len(arms)), 0.5)
    for row in range(len(arms)):
        for column in range(row):
            rates[row, column] = _pair_wins(arms[row], arms[column]).mean()
            rates[column, row] = 1 - rates[row, column]
    return rates


def _pairs(first: Matrix, second: Matrix) -> Matrix:
    """First minus second for every pair of answers to a prompt, shape (prompts, pairs)."""
    return (first[:, :, None] - second[:, None, :]).reshape(first.shape[0], -1)


def _pair_wins(first: Matrix, second: Matrix) -> Matrix:
    """1 where the first answer of a pair is better, 1/2 at a tie, shape (prompts, pairs)."""
    wins: Matrix = (np.sign(_pairs(first, second)) + 1) / 2
    return wins


def _logistic(log_odds: float) -> float:
    """Without overflow on either side."""
    return (1 + math.tanh(log_odds / 2)) / 2


def _require(arrays: Sequence[NDArray[Any]], axes: tuple[str, ...], prompts: int = 1) -> None:
    shapes = [array.shape for array in arrays]
    first = shapes[0] if shapes else ()
    if len(first) != len(axes) or set(shapes) != {first} or 0 in first or first[0] < prompts:
        found = ", ".join(map(str, shapes)) or "none"
        raise InputError(
            f"Expected numbers of one shape ({', '.join(axes)}) with at least {prompts} "
            f"{axes[0]}, found {found}.",
            "Give all arms the same prompts and the same number of answers.",
        )
    if bad := sum(int((~np.isfinite(array)).sum()) for array in arrays):
        raise InputError(
            f"Expected finite numbers, found {bad} that are not.",
            "Leave out the prompts whose reward failed, in all arms.",
        )
