"""Is a rewrite better than the prompt as it is? What the answers to both say, and who may pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignpro_lite.rewriting.posterior import Vector

# The 0.95 quantiles of Student's t with 1, 2, 3 ... degrees of freedom.
_T_95 = (
    *(6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812),
    *(1.796, 1.782, 1.771, 1.761, 1.753, 1.746, 1.740, 1.734, 1.729, 1.725),
    *(1.721, 1.717, 1.714, 1.711, 1.708, 1.706, 1.703, 1.701, 1.699, 1.697),
)


@dataclass(frozen=True)
class Gain:
    """How much better a rewrite is, in the unit of the reward.

    Attributes:
        estimate: Of R(x, x') - R(x, x), from answers that had no part in choosing x'; NaN if there
            are none, as after a race.
        lower: A bound that the true difference exceeds with probability 0.95 if rewards are normal,
            from the same answers; -inf if one side has fewer than two, because their noise is
            unknown.
        expected: The posterior mean of the difference given all answers, also those that chose x'
            and those to the other candidates: they show how lucky the chosen one was.
    """

    estimate: float
    lower: float
    expected: float

    @property
    def is_expected(self) -> bool:
        """Whether the rewrite is expected to be better: what `balanced` asks."""
        return self.expected > 0

    @property
    def is_certain(self) -> bool:
        """Whether it is better with a certainty of 95 %: what `strict` asks."""
        return self.lower > 0


def gain(judged: Vector, raw: Vector, expected: float) -> Gain:
    """Compare rewards of answers to a rewrite with those of answers to the prompt itself.

    The bound is Welch's (1947), which allows each side its own variance. It covers 0.95 for normal
    rewards. For others it depends, with 8 answers each: 0.91 for two-valued against exponential
    rewards, 0.89 where both are skewed away from each other, 0.73 for chances of 0.95 against 0.1,
    of which few answers show only one value. Where both sides have the same law, whatever it is,
    the bound is above 0 in about 0.06 of cases at most.

    It is valid only if neither side had a part in choosing the rewrite, nor in deciding whether it
    is judged: the best of many looks better than it is.

    Args:
        judged: Rewards of answers to x' that did not choose it.
        raw: Rewards of answers to x.
        expected: The posterior mean of the difference.
    """
    if not len(judged) or not len(raw):
        return Gain(math.nan, -math.inf, expected)
    judged, raw = judged - raw[0], raw - raw[0]  # equal rewards give exactly 0
    estimate = float(judged.mean() - raw.mean())
    if min(len(judged), len(raw)) < 2:
        return Gain(estimate, -math.inf, expected)
    squares = [float(side.var(ddof=1)) / len(side) for side in (judged, raw)]
    total = sum(squares)
    if total == 0:
        return Gain(estimate, estimate, expected)
    # Shares of the total: squares of the variances themselves may be too large or small for floats.
    spent = sum(
        (square / total) ** 2 / (len(side) - 1)
        for square, side in zip(squares, (judged, raw), strict=True)
    )
    bound = estimate - student_95(int(1 / spent)) * math.sqrt(total)
    return Gain(estimate, bound, expected)


def student_95(degrees: int) -> float:
    """The 0.95 quantile of Student's t; beyond the table its last entry, which is larger."""
    return _T_95[min(max(degrees, 1), len(_T_95)) - 1]
