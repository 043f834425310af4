"""What a chat model says about the systems: each one's first answers beside the baseline's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict

from tqdm import tqdm

from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval.analysis import Answers
from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.eval.opening import Evaluation
from alignpro_lite.eval.pair_judge import PairJudgement, judge_pairs
from alignpro_lite.eval.results import ResultRow
from alignpro_lite.eval.summary import ALL
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.measure.statistics import Estimate
from alignpro_lite.reward.judge import JudgeScorer, Tie, Verdict, load_judge

FILE = "pairs.jsonl"


def pair_notes(
    evaluation: Evaluation, records: Sequence[ResultRow], note: Callable[[str], None]
) -> tuple[str, ...]:
    """Have the pair judge compare every system with the baseline; a sentence each.

    A judge that answers nonsense costs its own verdicts and nothing else.

    Args:
        evaluation: Names the judge; without one there is nothing to say.
        records: What was answered.
        note: Told what people who wait should know.

    Raises:
        AlignProError: The judge is missing or failed.
    """
    config, places = evaluation.config, evaluation.places
    if config.pair_judge is None:
        return ()
    answers = Answers.of(config, records)
    journal = evaluation.journal(FILE)
    known: dict[str, list[Verdict]] = {}
    for number, row in enumerate(journal.read(), start=1):
        try:
            found = Verdict(row["preference"], row["mass"], row["tie"] and Tie(row["tie"]))
            known.setdefault(row["system"], []).append(found)
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{journal.file}: line {number} is damaged ({error}).", CURE
            ) from error
    source = config.pair_judge.source
    path = places.store.path("target", source)
    note(f"Asking {source} about pairs of answers, in both orders.")
    with closing(load_judge(path, source, threads=usable_cores())) as judge:
        return tuple(
            _sentence(judge, answers, system, known.get(system, []), journal)
            for system in answers.rows
            if system != config.baseline
        )


def _sentence(
    judge: JudgeScorer, answers: Answers, system: str, known: Sequence[Verdict], journal: Journal
) -> str:
    baseline = answers.config.baseline
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
    return _told(judge.names[0], system, baseline, found)


def _told(judge: str, system: str, baseline: str, found: PairJudgement) -> str:
    return (
        f"{judge} prefers {system} to {baseline} on {_share(found.win)} of "
        f"{len(found.preferences)} prompts, {baseline} on {_share(found.loss)}, neither on "
        f"{_share(found.tie)} ({found.position_biased} times it contradicted itself when the "
        f"answers changed places, {found.nonsense} times it replied nonsense, {found.too_long} "
        f"pairs were too long, {found.equal} equal)."
    )


def _share(share: Estimate) -> str:
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
