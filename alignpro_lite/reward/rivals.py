"""Rivals: answers to the prompt as it is, which a judge of pairs compares other answers with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TypeAlias

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.target.rollout import Answer, AnswerPlan, Target

RivalSource: TypeAlias = Callable[[Sequence[str]], list[tuple[str, ...]]]
"""Gives the rivals of each of several prompts x, the same ones at every call."""


def no_rivals(prompts: Sequence[str]) -> list[tuple[str, ...]]:
    """What a reward gets that compares nothing."""
    return [()] * len(prompts)


def rival_source(count: int, target: Target, plan: AnswerPlan, seed: int) -> RivalSource:
    """Where a run that scores many answers takes the rivals of a prompt from.

    They are drawn at the first use, those of all new prompts together, and kept. Each prompt has
    a seed of its own: a reward has to stay the same for as long as something is learned from it,
    and after a resumed run too.

    Args:
        count: How many a reward needs, see `Reward.rivals`.
        target: The frozen target.
        plan: How it is asked, as for the answers that are scored.
        seed: Of the run.
    """
    if count == 0:
        return no_rivals
    known: dict[str, tuple[str, ...]] = {}

    def rivals_of(prompts: Sequence[str]) -> list[tuple[str, ...]]:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        if new:
            asked = [[Message("user", prompt)] for prompt in new]
            seeds = [stream_seed(seed, _number(prompt)) for prompt in new]
            drawn = target.answers(asked, plan.with_count(count), seeds)
            for prompt, outcomes in zip(new, drawn, strict=True):
                known[prompt] = tuple(found.text for found in outcomes if isinstance(found, Answer))
        return [known[prompt] for prompt in prompts]

    return rivals_of


def _number(prompt: str) -> int:
    """A prompt's own number, of 32 bits."""
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")
