"""Arms of a comparison: one prompt, several ways to put it, several answers to each, scored.

Every arm answers the same prompts with the same target and the same number of answers. In the
arms with a prompter each answer has a rewrite of its own, as a user would get one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.errors import RewardError
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.reward import Reward
from alignpro_lite.target.rollout import Answer, AnswerPlan, Target

_ASKED_TOGETHER = 32
"""Conversations handed to the target at a time, so that progress can be shown."""


class Rewriter(Protocol):
    """Anything that rewrites prompts."""

    def rewrites(self, prompts: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """Draw that many rewrites x' of every x."""


@dataclass(frozen=True)
class Arm:
    """What one arm sent and got.

    Attributes:
        name: Such as learned.
        sent: x' of every answer; prompts x answers.
        answers: y of every answer; prompts x answers.
        rewards: Named scores of every answer, each of shape (prompts, answers).
    """

    name: str
    sent: tuple[tuple[str, ...], ...]
    answers: tuple[tuple[str, ...], ...]
    rewards: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Bench:
    """What all arms share.

    Attributes:
        target: The frozen π_F.
        rewards: Named rewards r*; each scores the original prompt.
        prompts: x, different ones.
        plan: How the target is asked.
        seed: Of rewrites and answers.
    """

    target: Target
    rewards: Mapping[str, Reward]
    prompts: Sequence[str]
    plan: AnswerPlan
    seed: int

    def unchanged(self) -> list[list[str]]:
        """What the arm without a prompter sends."""
        return [[prompt] * self.plan.count for prompt in self.prompts]

    def rewritten(self, rewriter: Rewriter) -> list[list[str]]:
        """What an arm with a prompter sends: a rewrite of its own for every answer."""
        return rewriter.rewrites(self.prompts, self.plan.count, self.seed)

    def best_of(self, rewriter: Rewriter, count: int, reward: str) -> list[list[str]]:
        """What best-of-N sends: of `count` rewrites the one whose one trial answer scores best.

        The answers that count are drawn anew, so that a lucky trial does not count.
        """
        drawn = rewriter.rewrites(self.prompts, count, stream_seed(self.seed, 1))
        trials = self.arm("trial", drawn, stream_seed(self.seed, len(self.prompts)))
        best = trials.rewards[reward].argmax(axis=1)
        return [[row[place]] * self.plan.count for row, place in zip(drawn, best, strict=True)]

    def arm(self, name: str, sent: Sequence[Sequence[str]], seed: int) -> Arm:
        """Answer and score what an arm sends, one answer to each x'.

        Raises:
            RewardError: An answer failed or has no score; a comparison needs them all.
        """
        flat = [rewrite for row in sent for rewrite in row]
        answers: list[str] = []
        for start in range(0, len(flat), _ASKED_TOGETHER):
            conversations = [[Message("user", x)] for x in flat[start : start + _ASKED_TOGETHER]]
            once = self.plan.with_count(1)
            outcomes = self.target.answers(conversations, once, stream_seed(seed, start))
            answers.extend(_text(outcome[0]) for outcome in outcomes)
        width = len(sent[0])
        rows = [answers[at : at + width] for at in range(0, len(answers), width)]
        return self.scored(name, sent, rows)

    def scored(
        self, name: str, sent: Sequence[Sequence[str]], answers: Sequence[Sequence[str]]
    ) -> Arm:
        """Score what an arm has sent and got, an answer to each x'.

        Raises:
            RewardError: An answer has no score; a comparison needs them all.
        """
        exchanges = [
            Exchange(x, y) for x, row in zip(self.prompts, answers, strict=True) for y in row
        ]
        shape = (len(self.prompts), -1)
        scores: dict[str, NDArray[np.float64]] = {}
        for key, reward in self.rewards.items():
            found = reward.score(exchanges)
            if found.failed.any():
                raise RewardError(
                    f"{found.failed.sum()} of {len(exchanges)} answers have no score by {key}.",
                    "Mend the reward; a comparison needs every score.",
                )
            named = {f"{key}/{part}": values for part, values in found.parts.items()}
            for part, values in {key: found.total, **named}.items():
                scores[part] = values.reshape(shape)
        return Arm(name, tuple(map(tuple, sent)), tuple(map(tuple, answers)), scores)


def _text(outcome: object) -> str:
    if isinstance(outcome, Answer):
        return outcome.text
    raise RewardError(
        f"The target failed to answer a held-out prompt ({outcome}).",
        "Mend the target; a comparison needs every answer.",
    )
