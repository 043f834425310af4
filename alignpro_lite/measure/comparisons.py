"""What a table of many systems needs: wins, p values, shares of the oracle's gain, agreement.

Arms are as in `statistics`: rewards of shape (prompts, answers), row i of all arms belongs to the
same prompt, and prompts are the independent units of every interval.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import (
    LEVEL,
    RESAMPLES,
    RESAMPLES_AT_ONCE,
    Estimate,
    FloatArray,
    answer_differences,
    bootstrap_mean,
    require_numbers,
    require_rewards,
    resampled_means,
    wilson,
    win_scores,
    within_prompt_variances,
)

_SAME = 1e-12
"""Means this close are equal: the order of a sum changes its last digits."""


def win_tie_loss(first: FloatArray, second: FloatArray) -> tuple[Estimate, Estimate, Estimate]:
    """Count the prompts that an arm wins, ties and loses by its mean reward.

    Args:
        first: Rewards, shape (prompts, answers).
        second: Same shape.

    Returns:
        The shares of prompts on which the first arm's mean reward is higher, equal and lower. They
        sum to 1, each with its own Wilson interval; means that differ by at most 1e-12 are a tie.

    Raises:
        InputError: The shapes do not fit, or a reward is not finite.
    """
    require_rewards(first, second)
    gains = first.mean(axis=1) - second.mean(axis=1)

    def share(which: NDArray[np.bool_]) -> Estimate:
        return wilson(int(which.sum()), gains.size)

    return share(gains > _SAME), share(np.abs(gains) <= _SAME), share(gains < -_SAME)


def sign_flip_p(differences: FloatArray, seed: int) -> float:
    """Two-sided p value of no difference, by flipping signs (Fisher 1935; Pitman 1937).

    If the arms do not differ, each difference could as well have had the other sign. The p value
    is the share of random signs whose mean is at least as far from 0 as the observed mean, which is
    counted among them (Phipson and Smyth 2010): so it is never 0, and it is exact for any number of
    prompts. If only the mean is 0 and the differences are skewed around it, it is right for many
    prompts (Romano 1990): for exponential differences, 0.05 is really 0.09 with 20 prompts and 0.07
    with 40.

    Args:
        differences: First arm minus second for each prompt, shape (prompts,).
        seed: Of the signs.

    Returns:
        1 / (RESAMPLES + 1) to 1.

    Raises:
        InputError: There is no difference, or one is not finite.
    """
    require_numbers("differences", ("prompts",), differences)
    random = np.random.default_rng(seed)
    # Rounding must not put a sum of the same numbers in another order below the observed one.
    observed = abs(float(differences.sum())) - _SAME * float(np.abs(differences).sum())
    size = (RESAMPLES_AT_ONCE, differences.size)
    as_far = 0
    for _ in range(RESAMPLES // RESAMPLES_AT_ONCE):
        signs = 2.0 * random.integers(2, size=size) - 1
        as_far += int((np.abs(signs @ differences) >= observed).sum())
    return (as_far + 1) / (RESAMPLES + 1)


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for the number of tests (Holm 1979).

    If every difference with an adjusted value of at most 0.05 is called real, the probability that
    any of them is not is at most 0.05, however the tests depend on each other.

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
            f"Expected p values between 0 and 1, found {list(p_values)}.", "Pass only p values."
        )
    order = np.argsort(values, kind="stable")
    remaining = np.arange(values.size, 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(remaining * values[order]), 1.0)
    return [float(value) for value in adjusted]


def recovered_share(
    system: FloatArray, baseline: FloatArray, oracle: FloatArray, seed: int
) -> Estimate | None:
    """Share of the oracle's gain that a system reaches: (system - baseline) / (oracle - baseline).

    Args:
        system: Rewards, shape (prompts, answers), at least two prompts.
        baseline: Same shape.
        oracle: Same shape.
        seed: Of the resampling.

    Returns:
        A ratio of mean gains, below 0 for a system that is worse than the baseline and above 1
        for one that is better than the oracle, with its paired percentile bootstrap interval over
        prompts. None if the interval of the oracle's own gain reaches down to 0: a share of a gain
        that may be 0 means nothing.

    Raises:
        InputError: The shapes do not fit, or a reward is not finite.
    """
    require_rewards(system, baseline, oracle, at_least=2)
    base = baseline.mean(axis=1)
    gains = np.stack([system.mean(axis=1) - base, oracle.mean(axis=1) - base], axis=1)
    system_gains, oracle_gains = resampled_means(gains, seed).T
    if np.quantile(oracle_gains, (1 - LEVEL) / 2) <= 0:
        return None
    # As the oracle's gain falls to 0, the share grows to infinity; at and below 0 it stays there.
    # That happens in fewer resamples than lie beyond an end of the interval, so the nearest
    # quantile is always finite.
    shares = np.copysign(np.inf, system_gains)
    np.divide(system_gains, oracle_gains, out=shares, where=oracle_gains > 0)
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    value = gains[:, 0].mean() / gains[:, 1].mean()
    return Estimate(float(value), float(low), float(high))


def between_prompt_variance(rewards: FloatArray) -> float:
    """Variance of the expected reward between prompts, by one-way random effects (Fisher 1925).

    The means of a few answers also differ by the noise of those answers. Their variance minus the
    variance within a prompt divided by the number of answers is unbiased.

    Args:
        rewards: Shape (prompts, answers), at least (2, 2).

    Returns:
        A variance in the square of the reward's unit; 0 if the noise explains all of it.

    Raises:
        InputError: There are fewer prompts or answers, or a reward is not finite.
    """
    require_rewards(rewards, at_least=2)
    noise = float(within_prompt_variances(rewards).mean() / rewards.shape[1])
    return max(float(rewards.mean(axis=1).var(ddof=1)) - noise, 0.0)


def judge_agreement(first: FloatArray, second: FloatArray, seed: int) -> Estimate:
    """Share of pairs of answers in which two judges prefer the same answer.

    Args:
        first: How much higher the first judge scores the first answer of a pair than the second
            answer, in any unit, shape (prompts, pairs); the pairs of a prompt need not be
            independent.
        second: The same for the second judge, same shape.
        seed: Of the resampling.

    Returns:
        A share with its bootstrap interval over prompts. A pair that either judge ties counts
        half, so a judge that always ties agrees with any other as often as a coin.

    Raises:
        InputError: The shapes do not fit, or a margin is not finite.
    """
    require_numbers("margins", ("prompts", "pairs"), first, second, at_least=2)
    return bootstrap_mean(win_scores(np.sign(first) * np.sign(second)).mean(axis=1), seed)


def answer_win_matrix(arms: Sequence[FloatArray]) -> FloatArray:
    """How often an answer of one arm beats one of another arm to the same prompt.

    Args:
        arms: Rewards of each arm, each of shape (prompts, answers).

    Returns:
        Shape (arms, arms): entry (i, j) is the probability that an answer of arm i beats one of
        arm j, a tie counting half (`statistics.answer_win_rate`). Entries (i, j) and (j, i) sum
        to 1; the diagonal is 0.5.

    Raises:
        InputError: There is no arm, the shapes do not fit, or a reward is not finite.
    """
    require_rewards(*arms)
    rates = np.full((len(arms), len(arms)), 0.5)
    for row in range(len(arms)):
        for column in range(row):
            rates[row, column] = win_scores(answer_differences(arms[row], arms[column])).mean()
            rates[column, row] = 1 - rates[row, column]
    return rates
