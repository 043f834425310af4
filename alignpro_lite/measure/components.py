"""Variance components of rewards: prompt, rewrite, their interaction, and answer.

    reward of an answer = mean + prompt + rewrite + (prompt x rewrite) + answer

Rewrites that all prompts share, such as constant hints, are **crossed** with the prompts, and all
four parts can be told apart. A prompter's own rewrites of a prompt are **nested** in it: what a
rewrite is worth everywhere and what it is worth here only cannot be told apart, and are one part.

All estimators are unbiased, by the method of moments (Searle, Casella and McCulloch 1992, chapters
4 and 5), whatever the shape of the noise and also where it differs between prompts. An estimate
below 0 says that less was seen than noise alone would show. Shared rewrites are the ones there are,
no sample of others; so prompts, with all their answers, are the units of every interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import (
    NORMAL_QUANTILE,
    Estimate,
    FloatArray,
    require_numbers,
)

IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Components:
    """What the variance of the reward of one answer consists of, in the square of its unit.

    Attributes:
        prompt: Between prompts, whatever the rewrite.
        rewrite: Between rewrites: of shared ones in their mean over prompts, of a prompter's own
            ones within a prompt.
        interaction: Between prompts in what a shared rewrite is worth: what a choice for each
            prompt could use. None where rewrites are nested: `rewrite` contains it.
        answer: Between answers to one rewrite.
    """

    prompt: Estimate
    rewrite: Estimate
    interaction: Estimate | None
    answer: Estimate


def crossed_components(rewards: FloatArray) -> Components:
    """Split the variance where all prompts share their rewrites.

    Args:
        rewards: Shape (prompts, rewrites, answers), at least (3, 2, 2).

    Raises:
        InputError: There are fewer, or a reward is not finite.
    """
    require_numbers("rewards", ("prompts", "rewrites", "answers"), rewards, at_least=3)
    _, rewrites, answers = rewards.shape
    if rewrites < 2 or answers < 2:
        raise InputError(
            "Variance components need at least 2 rewrites and 2 answers to each, found "
            f"{rewrites} and {answers}.",
            "Try more of them.",
        )
    means = rewards.mean(axis=2)
    levels = means.mean(axis=1)
    effects = means - levels[:, None]
    noise = rewards.var(axis=2, ddof=1).mean(axis=1)

    def parts(kept: IntArray) -> FloatArray:
        count, noisy = len(kept), noise[kept].mean()
        squares = (effects[kept] ** 2).sum() / (rewrites - 1)
        # The product of two prompts' effects holds what they share, and no noise of answers.
        shared = (effects[kept].sum(axis=0) ** 2).sum() / (rewrites - 1)
        rewrite = (shared - squares) / (count * (count - 1))
        mixed = squares / count - rewrite  # interaction, with the noise of the means
        prompt = levels[kept].var(ddof=1) - mixed / rewrites
        return np.array([prompt, rewrite, mixed - noisy / answers, noisy])

    return Components(*jackknife(parts, len(rewards)))


def nested_components(rewards: Sequence[FloatArray], counts: Sequence[IntArray]) -> Components:
    """Split the variance where every prompt has rewrites of its own, drawn from one prompter.

    Args:
        rewards: For each of at least three prompts, of the different rewrites that were drawn,
            shape (rewrites, answers), at least two answers.
        counts: How often each of them was drawn, shape (rewrites,), in all at least two.

    Raises:
        InputError: There are fewer, or a reward is not finite.
    """
    for table, drawn in zip(rewards, counts, strict=True):
        require_numbers("rewards", ("rewrites", "answers"), table)
        if table.shape[1] < 2 or drawn.sum() < 2:
            raise InputError(
                "Variance components need at least 2 rewrites of each prompt and 2 answers to "
                f"each, found {drawn.sum()} and {table.shape[1]}.",
                "Try more of them.",
            )
    if len(rewards) < 3:
        raise InputError(
            f"Variance components need at least 3 prompts, found {len(rewards)}.", "Add prompts."
        )
    pairs = zip(rewards, counts, strict=True)
    moments = np.array([_drawn_moments(table, drawn) for table, drawn in pairs])

    def parts(kept: IntArray) -> FloatArray:
        level, error, rewrite, answer = moments[kept].T
        return np.array([level.var(ddof=1) - error.mean(), rewrite.mean(), answer.mean()])

    prompt, rewrite, answer = jackknife(parts, len(rewards))
    return Components(prompt, rewrite, None, answer)


def _drawn_moments(rewards: FloatArray, counts: IntArray) -> tuple[float, float, float, float]:
    """Of one prompt: the mean over draws, its error variance, and the variances within.

    Two draws of the same rewrite share their answers, so that only the difference of two different
    ones holds noise, which is taken out of it.
    """
    total = counts.sum()
    means, noise = rewards.mean(axis=1), rewards.var(axis=1, ddof=1)
    errors = noise / rewards.shape[1]
    level = counts @ means / total
    squares = counts @ (means - level) ** 2 / (total - 1)
    false = (counts * (total - counts)) @ errors / (total * (total - 1))
    rewrite = squares - false
    error = rewrite / total + counts**2 @ errors / total**2
    return float(level), float(error), float(rewrite), float(counts @ noise / total)


def jackknife(statistic: Callable[[IntArray], FloatArray], prompts: int) -> tuple[Estimate, ...]:
    """Estimates with intervals from leaving out each prompt once (Tukey 1958).

    The pseudo-values are taken for independent ones of Student's distribution. For a mean over
    prompts, that is its classical interval.

    Args:
        statistic: From the places of some prompts to several numbers, shape (numbers,).
        prompts: How many there are, at least two.
    """
    everyone = np.arange(prompts)
    whole = statistic(everyone)
    without = np.array([statistic(np.delete(everyone, place)) for place in everyone])
    values = prompts * whole - (prompts - 1) * without
    half = student_quantile(prompts - 1) * values.std(axis=0, ddof=1) / np.sqrt(prompts)
    ends = zip(whole, half, strict=True)
    return tuple(Estimate(float(v), float(v - h), float(v + h)) for v, h in ends)


def student_mean(values: FloatArray) -> Estimate:
    """Mean over prompts with Student's interval.

    Unlike `statistics.bootstrap_mean`, it is not too narrow for few prompts.

    Args:
        values: A number for each prompt, shape (prompts,), at least two, finite.

    Raises:
        InputError: There are fewer, or one is not finite.
    """
    require_numbers("values", ("prompts",), values, at_least=2)
    value, count = float(values.mean()), len(values)
    half = student_quantile(count - 1) * float(values.std(ddof=1)) / math.sqrt(count)
    return Estimate(value, value - half, value + half)


def student_quantile(degrees: int) -> float:
    """The quantile of Student's distribution that `NORMAL_QUANTILE` is of the normal one.

    The expansion of Cornish and Fisher (Abramowitz and Stegun 1964, 26.7.5): within 0.1 % from
    4 degrees of freedom, and within 1 % from 2.

    Args:
        degrees: Degrees of freedom, at least 1; for 1 it is exact.
    """
    if degrees == 1:
        return float(np.tan(np.pi * 0.475))
    z = NORMAL_QUANTILE
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160
    terms = (first, second, third, fourth)
    return math.fsum([z, *(term / degrees**power for power, term in enumerate(terms, start=1))])
