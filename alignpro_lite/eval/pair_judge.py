"""A chat model that compares each system's first answers with the baseline's, in both orders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from statistics import median

from tqdm import tqdm

from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval.answers import Answers
from alignpro_lite.eval.evaluation import Evaluation
from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.measure.statistics import Estimate, wilson
from alignpro_lite.reward.judge import JudgeScorer, Tie, Verdict, load_judge

PAIRS = "pairs.jsonl"
ENOUGH = 20
"""Replies after which a judge that talks nonsense is stopped, rather than hours later."""


@dataclass(frozen=True)
class PairJudgement:
    """A first system compared with a second one by a judge, one answer of each to each prompt.

    Attributes:
        win: Share of prompts on which the judge prefers the first system's answer.
        tie: Share on which it prefers neither, for whatever reason.
        loss: Share on which it prefers the second system's answer.
        preferences: 1, 0 or -1 for each prompt, in order.
        ties: How many prompts ended in a tie, by the reason.
    """

    win: Estimate
    tie: Estimate
    loss: Estimate
    preferences: tuple[int, ...]
    ties: Counter[Tie]


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
    path = places.store.path("target", section.source)
    note(f"Asking {section.source} about pairs of answers, in both orders.")
    cache = places.store.cache
    with closing(load_judge(path, cache, section.source, threads=usable_cores())) as judge:
        return (
            f"How often {judge.names[0]} is right about pairs of answers was not measured.",
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
        try:
            verdict = Verdict(row["preference"], row["mass"], row["tie"] and Tie(row["tie"]))
            known.setdefault(row["system"], []).append(verdict)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{journal.file}: line {number} is damaged ({error}).", CURE
            ) from error
    return known


def _sentence(
    judge: JudgeScorer, answers: Answers, system: str, known: Sequence[Verdict], journal: Journal
) -> str:
    baseline = answers.lineup.baseline
    shared = answers.places(ALL, system, baseline)
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
        f"{judge.names[0]} prefers {system} to {baseline} on {_share(found.win)} of "
        f"{len(prompts)} prompts, {baseline} on {_share(found.loss)}, neither on "
        f"{_share(found.tie)} ({found.ties[Tie.POSITION]} times it contradicted itself when the "
        f"answers changed places, {found.ties[Tie.NONSENSE]} times it replied nonsense, "
        f"{found.ties[Tie.TOO_LONG]} pairs were too long, {found.ties[Tie.EQUAL]} equal)."
    )


def _share(share: Estimate) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def judge_pairs(
    judge: JudgeScorer,
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
        _require_sense(judge, verdicts, at_least=ENOUGH)
        verdicts.append(judge.verdict(prompt, answer, other))
        on_pair(verdicts[-1])
    _require_sense(judge, verdicts, at_least=1)
    _require_room(judge, verdicts)
    preferences = tuple(verdict.preference for verdict in verdicts)
    win, tie, loss = (wilson(preferences.count(sign), len(verdicts)) for sign in (1, 0, -1))
    ties = Counter(verdict.tie for verdict in verdicts if verdict.tie is not None)
    return PairJudgement(win, tie, loss, preferences, ties)


def _require_sense(judge: JudgeScorer, verdicts: Sequence[Verdict], at_least: int) -> None:
    masses = [verdict.mass for verdict in verdicts if verdict.mass is not None]
    nonsense = sum(verdict.nonsense for verdict in verdicts)
    if len(masses) >= at_least and 2 * nonsense > len(masses):
        raise RewardError(
            f"The judge {judge.names[0]} must reply with one of the two words that it is asked "
            f"for, but on {nonsense} of {len(masses)} pairs prefers to say something else: those "
            f"words have a median probability of {median(masses):.2g}.",
            "Choose an instruction-tuned chat model that replies without thinking aloud first.",
        )


def _require_room(judge: JudgeScorer, verdicts: Sequence[Verdict]) -> None:
    if all(verdict.tie is Tie.TOO_LONG for verdict in verdicts):
        raise RewardError(
            f"The judge {judge.names[0]} cannot hold any of {len(verdicts)} pairs of answers in "
            "its context.",
            "Load it with a larger context, or let the target answer in fewer tokens.",
        )
