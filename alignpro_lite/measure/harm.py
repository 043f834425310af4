"""Harm: prompts on which all answers got worse, beside how many luck alone would make."""

from __future__ import annotations

import math
from dataclasses import dataclass

from alignpro_lite.measure.statistics import Estimate, FloatArray, require_rewards, wilson


@dataclass(frozen=True)
class Harm:
    """How often everything got worse.

    Attributes:
        each: Share of prompts where each answer is worse than the baseline's answer of the same
            number, with its Wilson interval.
        each_by_luck: The most that this share would be if rewrites made no difference.
        every: Share of prompts where every answer is worse than all of the baseline's.
        every_by_luck: Likewise.
    """

    each: Estimate
    each_by_luck: float
    every: Estimate
    every_by_luck: float


def harm(system: FloatArray, baseline: FloatArray) -> Harm:
    """Count the prompts on which all answers of a system are worse.

    If two arms do not differ, M answers are all worse than those of the same number with
    probability 1 / 2^M, and all of them are worse than all M others with probability 1 / C(2M, M):
    every order of the 2M rewards is as likely as another. Ties make both rarer.

    Args:
        system: Rewards, shape (prompts, M).
        baseline: Same shape; answers of one number were drawn with the same seed.

    Raises:
        InputError: The shapes do not fit, or a reward is not finite.
    """
    require_rewards(system, baseline)
    prompts, answers = system.shape
    each = (system < baseline).all(axis=1)
    every = system.max(axis=1) < baseline.min(axis=1)
    return Harm(
        each=wilson(int(each.sum()), prompts),
        each_by_luck=0.5**answers,
        every=wilson(int(every.sum()), prompts),
        every_by_luck=1 / math.comb(2 * answers, answers),
    )
