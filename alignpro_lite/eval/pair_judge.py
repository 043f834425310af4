"""A chat model as judge of whole arms: which of two answers to each prompt it prefers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.measure.statistics import Estimate, wilson
from alignpro_lite.reward.judge import JudgeScorer, Tie, Verdict

ENOUGH = 20
"""Replies after which a judge of nonsense is stopped, rather than hours later."""


@dataclass(frozen=True)
class PairJudgement:
    """A first arm held against a second one by a judge, one answer of each to each prompt.

    Attributes:
        win: Share of prompts on which the judge prefers the first arm's answer.
        tie: Share on which it prefers neither, for whatever reason.
        loss: Share on which it prefers the second arm's answer.
        preferences: 1, 0 or -1 for each prompt, in order.
        equal: Prompts to which both arms gave the same answer; ties.
        too_long: Prompts whose answers the judge's context cannot hold; ties.
        nonsense: Prompts on which the judge replied nonsense; ties.
        position_biased: Prompts on which it disagreed with itself in the other order; ties.
    """

    win: Estimate
    tie: Estimate
    loss: Estimate
    preferences: tuple[int, ...]
    equal: int
    too_long: int
    nonsense: int
    position_biased: int


def judge_pairs(
    judge: JudgeScorer,
    prompts: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    known: Sequence[Verdict],
    on_pair: Callable[[Verdict], None],
) -> PairJudgement:
    """Have a judge compare two arms, every pair of answers in both orders.

    Args:
        judge: Who is asked.
        prompts: The original prompts, at least one.
        first: The first arm's answer to each prompt.
        second: The second arm's.
        known: Verdicts on the first pairs, from a run that was stopped; these are not asked again.
        on_pair: Told every other verdict, in order, as soon as it is known.

    Returns:
        Shares with their Wilson intervals over prompts.

    Raises:
        InputError: The numbers of prompts and answers differ, or there is no prompt.
        RewardError: More than half of the judge's replies are nonsense, in the end or after
            ENOUGH of them; or none of the pairs fits its context.
        DeviceError: The model failed.
    """
    if not 0 < len(prompts) == len(first) == len(second):
        raise InputError(
            f"Expected an answer of both arms to every prompt, found {len(first)} and "
            f"{len(second)} to {len(prompts)} prompts.",
            "Give at least one prompt, and one answer of each arm to each.",
        )
    verdicts = list(known)
    pairs = list(zip(prompts, first, second, strict=True))
    for prompt, answer, other in pairs[len(known) :]:
        _require_sense(judge, verdicts, at_least=ENOUGH)
        verdicts.append(judge.verdict(prompt, answer, other))
        on_pair(verdicts[-1])
    _require_sense(judge, verdicts, at_least=1)
    _require_room(judge, verdicts)
    return _counted(verdicts)


def _counted(verdicts: Sequence[Verdict]) -> PairJudgement:
    preferences = tuple(verdict.preference for verdict in verdicts)
    ties = Counter(verdict.tie for verdict in verdicts)
    win, tie, loss = (wilson(preferences.count(each), len(verdicts)) for each in (1, 0, -1))
    return PairJudgement(
        win=win,
        tie=tie,
        loss=loss,
        preferences=preferences,
        equal=ties[Tie.EQUAL],
        too_long=ties[Tie.TOO_LONG],
        nonsense=ties[Tie.NONSENSE],
        position_biased=ties[Tie.POSITION],
    )


def _require_sense(judge: JudgeScorer, verdicts: Sequence[Verdict], at_least: int) -> None:
    masses = [verdict.mass for verdict in verdicts if verdict.mass is not None]
    nonsense = sum(verdict.nonsense for verdict in verdicts)
    if len(masses) >= at_least and 2 * nonsense > len(masses):
        raise RewardError(
            f"The judge {judge.names[0]} must reply with one of the two words that it is asked "
            f"for, but on {nonsense} of {len(masses)} pairs rather says something else: those "
            f"words have a probability of {median(masses):.2g} at the median.",
            "Choose an instruction-tuned chat model that replies without thinking aloud first.",
        )


def _require_room(judge: JudgeScorer, verdicts: Sequence[Verdict]) -> None:
    if all(verdict.tie is Tie.TOO_LONG for verdict in verdicts):
        raise RewardError(
            f"The judge {judge.names[0]} cannot hold any of {len(verdicts)} pairs of answers in "
            "its context.",
            "Load it with a larger context, or let the target answer in fewer tokens.",
        )
