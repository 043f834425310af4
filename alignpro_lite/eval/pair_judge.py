"""A chat model that compares each system's first answers with the baseline's, in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval.answers import Answers
from alignpro_lite.eval.evaluation import Evaluation
from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.measure.statistics import Estimate, wilson
from alignpro_lite.reward.judge import PairJudge, Tie, Verdict, require_sense
from alignpro_lite.reward.loading import open_judge

PAIRS = "pairs.jsonl"
ENOUGH = 20
"""Replies after which a judge that talks nonsense is stopped, rather than hours later."""


@dataclass(frozen=True)
class PairJudgement:
    """A first system compared with a second one by a judge, one answer of each to each prompt.

    Attributes:
        win: Share of prompts on which the judge prefers the first system's answer.
        tie: Share on which it prefers neither.
        loss: Share on which it prefers the second system's answer.
        preferences: 1, 0 or -1 for each prompt, in order.
        ties: How many prompts ended in a tie, by the reason.
        same_letter: On how many it named the same letter in both orders.
    """

    win: Estimate
    tie: Estimate
    loss: Estimate
    preferences: tuple[int, ...]
    ties: Counter[Tie]
    same_letter: int


def pair_notes(
    evaluation: Evaluation, records: Sequence[ResultRow], note: Callable[[str], None]
) -> tuple[str, ...]:
    """Have the pair judge compare every system with the baseline; a sentence each, and one on it.

    A judge that replies nonsense costs its own verdicts and nothing else.

    Args:
        evaluation: Names the judge; without one there is nothing to say.
        records: What was answered.
        note: Called with each progress message.

    Raises:
        AlignProError: The judge is missing or failed.
    """
    section, places = evaluation.config.pair_judge, evaluation.places
    if section is None:
        return ()
    answers = Answers.of(evaluation.lineup, records)
    journal = evaluation.journal(PAIRS)
    known = _known_verdicts(journal)
    source, target = section.source, evaluation.loaded.llama
    note(f"Asking {source} about pairs of answers, in both orders.")
    with closing(open_judge(source, source, places.store, usable_cores(), target)) as judge:
        return (
            f"How often {judge.name} is right about pairs of answers was not measured here; "
            "`alignpro-lite eval pairs` does.",
            *(
                _sentence(judge, answers, system, known.get(system, []), journal)
                for system in answers.rows
                if system != evaluation.lineup.baseline
            ),
        )


def _known_verdicts(journal: Journal) -> dict[str, list[Verdict]]:
    """What an earlier run found, by system."""
    known: dict[str, list[Verdict]] = {}
    for number, row in enumerate(journal.read(), start=1):
        system = row.get("system", "")
        known.setdefault(system, []).append(verdict_of(row, journal.file, number))
    return known


def verdict_of(row: Mapping[str, Any], file: Path, number: int) -> Verdict:
    """A verdict that was written down.

    Args:
        row: Its fields.
        file: Where it stands, for errors.
        number: Its line there.

    Raises:
        InputError: It is damaged.
    """
    try:
        tie = row["tie"] and Tie(row["tie"])
        return Verdict(float(row["margin"]), row["mass"], row["same_letter"], tie)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: line {number} is damaged ({error!r}).", CURE) from error


def _sentence(
    judge: PairJudge, answers: Answers, system: str, known: Sequence[Verdict], journal: Journal
) -> str:
    baseline = answers.lineup.baseline
    shared = [place for place in answers.rows[system] if place in answers.rows[baseline]]
    prompts = [answers.rows[system][place].prompt for place in shared]
    first, second = (
        [answers.rows[name][place].answers[0] for place in shared] for name in (system, baseline)
    )
    with tqdm(total=len(shared), initial=len(known), unit="pair", desc=system) as bar:

        def keep(verdict: Verdict) -> None:
            journal.append([{"system": system} | asdict(verdict)])
            bar.update()

        try:
            found = judge_pairs(judge, prompts, first, second, known, keep)
        except RewardError as error:
            return f"{system}: no verdict. {error}"
    return (
        f"{judge.name} prefers {system} to {baseline} on {_share(found.win)} of "
        f"{len(prompts)} prompts, {baseline} on {_share(found.loss)}, neither on "
        f"{_share(found.tie)} ({found.ties[Tie.NONSENSE]} times it replied nonsense, "
        f"{found.ties[Tie.TOO_LONG]} pairs were too long, {found.ties[Tie.EQUAL]} equal). In both "
        f"orders together; it named the same letter in either one on {found.same_letter}."
    )


def _share(share: Estimate) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def judge_pairs(
    judge: PairJudge,
    prompts: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    known: Sequence[Verdict],
    on_pair: Callable[[Verdict], None],
) -> PairJudgement:
    """Have a judge compare two systems, every pair of answers in both orders.

    Args:
        judge: Who is asked.
        prompts: The original prompts, at least one.
        first: The first system's answer to each prompt.
        second: The second system's.
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
            f"Expected an answer of both systems to every prompt, found {len(first)} and "
            f"{len(second)} to {len(prompts)} prompts.",
            "Give at least one prompt, and one answer of each system to each.",
        )
    verdicts = list(known)
    pairs = list(zip(prompts, first, second, strict=True))
    for prompt, answer, other in pairs[len(known) :]:
        require_sense(judge.name, verdicts, at_least=ENOUGH)
        verdicts.append(judge.verdict(prompt, answer, other))
        on_pair(verdicts[-1])
    require_sense(judge.name, verdicts, at_least=1)
    _require_room(judge, verdicts)
    preferences = tuple(verdict.preference for verdict in verdicts)
    win, tie, loss = (wilson(preferences.count(sign), len(verdicts)) for sign in (1, 0, -1))
    ties = Counter(verdict.tie for verdict in verdicts if verdict.tie is not None)
    same = sum(verdict.same_letter or False for verdict in verdicts)
    return PairJudgement(win, tie, loss, preferences, ties, same)


def _require_room(judge: PairJudge, verdicts: Sequence[Verdict]) -> None:
    if all(verdict.tie is Tie.TOO_LONG for verdict in verdicts):
        raise RewardError(
            f"The judge {judge.name} cannot hold any of {len(verdicts)} pairs of answers in "
            "its context.",
            "Load it with a larger context, or let the target answer in fewer tokens.",
        )
