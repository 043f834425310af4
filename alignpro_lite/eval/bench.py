"""The bench: one target and its judges, which every system of an evaluation is measured with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import stream_seed, stream_seeds
from alignpro_lite.errors import RewardError
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.reward import Reward
from alignpro_lite.reward.rivals import RivalSource, no_rivals
from alignpro_lite.target.rollout import Answer, AnswerOrFailure, AnswerPlan, Target

_ASKED_TOGETHER = 32
"""Conversations handed to the target at a time."""


@dataclass(frozen=True)
class Response:
    """What a system did with some prompts.

    Attributes:
        sent: x' of every answer; prompts x answers.
        answers: y of every answer; prompts x answers.
        rewards: Scores by judge, and by judge/part, each of shape (prompts, answers); NaN where
            there is none.
        log_ratios: For each prompt, log q(x'|x) - log ρ_sft(x'|x) of rewrites whose q is known, in
            nats; empty if the system has none.
        reasons: For each prompt, why that rewrite was sent; empty if the system chooses nothing.
        cut: Whether each answer was cut at the most tokens that it may have; prompts x answers.
    """

    sent: Sequence[Sequence[str]]
    answers: Sequence[Sequence[str]]
    rewards: Mapping[str, FloatArray]
    log_ratios: Sequence[Sequence[float]] = ()
    reasons: Sequence[str] = ()
    cut: Sequence[Sequence[bool]] = ()


@dataclass(frozen=True)
class Bench:
    """What all systems share.

    Attributes:
        target: The frozen π_F.
        judges: Rewards r* by name; each scores the original prompt.
        plan: How the target is asked; `count` is the answers to each prompt.
        rivals: What a judge of pairs compares answers with, whoever gave them.
    """

    target: Target
    judges: Mapping[str, Reward]
    plan: AnswerPlan
    rivals: RivalSource = no_rivals

    def answer(self, prompts: Sequence[str], sent: Sequence[Sequence[str]], seed: int) -> Response:
        """Have the target answer each x' once, and score the answers.

        Args:
            prompts: x.
            sent: x', the same number for every prompt.
            seed: Seed of the answers.

        Raises:
            RewardError: An answer failed; a comparison needs them all.
        """
        flat = [rewrite for row in sent for rewrite in row]
        answers: list[Answer] = []
        once = self.plan.with_count(1)
        for start in range(0, len(flat), _ASKED_TOGETHER):
            conversations = [[Message("user", x)] for x in flat[start : start + _ASKED_TOGETHER]]
            seeds = stream_seeds(stream_seed(seed, start), len(conversations))
            outcomes = self.target.answers(conversations, once, seeds)
            answers.extend(needed_answer(outcome[0]) for outcome in outcomes)
        width = len(sent[0])
        rows = [answers[at : at + width] for at in range(0, len(answers), width)]
        response = self.score(prompts, sent, [[answer.text for answer in row] for row in rows])
        cut = [[answer.finish_reason == "length" for answer in row] for row in rows]
        return replace(response, cut=cut)

    def score(
        self,
        prompts: Sequence[str],
        sent: Sequence[Sequence[str]],
        answers: Sequence[Sequence[str]],
    ) -> Response:
        """Score answers that were already given, one to each x'."""
        exchanges = [
            Exchange(x, y, rivals)
            for x, rivals, row in zip(prompts, self.rivals(prompts), answers, strict=True)
            for y in row
        ]
        rewards: dict[str, FloatArray] = {}
        for judge, reward in self.judges.items():
            scores = reward.score(exchanges)
            parts = {f"{judge}/{part}": values for part, values in scores.parts.items()}
            for name, values in {judge: scores.total, **parts}.items():
                rewards[name] = values.reshape(len(prompts), -1)
        return Response(sent, answers, rewards)


System: TypeAlias = Callable[[Bench, Sequence[str], int], Response]
"""A way to get answers: gives those to prompts x, none of them twice, `bench.plan.count` of each;
the seed of everything that is drawn is the same for all systems."""


def needed_answer(outcome: AnswerOrFailure) -> Answer:
    """The answer that a comparison needs.

    Raises:
        RewardError: The target failed.
    """
    if isinstance(outcome, Answer):
        return outcome
    raise RewardError(
        f"The target failed to answer a held-out prompt ({outcome}).",
        "Fix the target; a comparison needs every answer.",
    )
