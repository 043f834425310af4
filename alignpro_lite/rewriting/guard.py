"""Do no harm: is a rewrite better than the prompt as it is, beyond the noise of its answers?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignpro_lite.rewriting.rho_star import Vector

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
        estimate: Of R(x, x') - R(x, x).
        lower: A bound that the true difference exceeds with probability 0.95; -inf if one side has
            fewer than two answers, because their noise is unknown.
    """

    estimate: float
    lower: float

    @property
    def is_certain(self) -> bool:
        """Whether the rewrite may be used: its lower bound is above zero."""
        return self.lower > 0


def gain(rewritten: Vector, raw: Vector) -> Gain:
    """Compare rewards of answers to a rewrite with those of answers to the prompt itself.

    The bound is Welch's (1947), which allows each side its own variance. It covers 0.95 for normal
    rewards, and 0.91 for two-valued against exponential rewards with 8 answers each. It is valid
    only for answers that had no part in choosing the rewrite: the best of many looks better than it
    is.

    Args:
        rewritten: Rewards of answers to x', at least one.
        raw: Rewards of answers to x, at least one.
    """
    estimate = float(rewritten.mean() - raw.mean())
    if min(len(rewritten), len(raw)) < 2:
        return Gain(estimate, -math.inf)
    squares = [float(side.var(ddof=1)) / len(side) for side in (rewritten, raw)]
    total = sum(squares)
    if total == 0:
        return Gain(estimate, estimate)
    spent = sum(
        square**2 / (len(side) - 1) for square, side in zip(squares, (rewritten, raw), strict=True)
    )
    degrees = int(total**2 / spent) if spent > 0 else len(_T_95)
    return Gain(estimate, estimate - student_95(degrees) * math.sqrt(total))


def student_95(degrees: int) -> float:
    """The 0.95 quantile of Student's t; beyond the table its last entry, which is larger."""
    return _T_95[min(max(degrees, 1), len(_T_95)) - 1]
