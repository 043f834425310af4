"""Rivals: answers to the prompt as it is, which a judge of pairs compares other answers with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeAlias

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.target.rollout import Answer, AnswerPlan, Target

RivalSource: TypeAlias = Callable[[str], tuple[str, ...]]
"""Gives the rivals of a prompt x, the same ones at every call."""


def no_rivals(prompt: str) -> tuple[str, ...]:
    """What a reward gets that compares nothing."""
    return ()


def rival_source(count: int, target: Target, plan: AnswerPlan, seed: int) -> RivalSource:
    """Where a run that scores many answers takes the rivals of a prompt from.

    They are drawn at the first use, with a seed of the prompt's own, and kept: a reward has to
    stay the same for as long as something is learned from it, and after a resumed run too.

    Args:
        count: How many a reward needs, see `Reward.rivals`.
        target: The frozen target.
        plan: How it is asked, as for the answers that are scored.
        seed: Of the run.
    """
    if count == 0:
        return no_rivals
    known: dict[str, tuple[str, ...]] = {}

    def rivals_of(prompt: str) -> tuple[str, ...]:
        if prompt not in known:
            own = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
            asked = [[Message("user", prompt)]]
            (outcomes,) = target.answers(asked, plan.with_count(count), stream_seed(seed, own))
            known[prompt] = tuple(found.text for found in outcomes if isinstance(found, Answer))
        return known[prompt]

    return rivals_of
