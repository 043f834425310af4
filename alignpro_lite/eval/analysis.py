"""From records to what they say: means, variances, comparisons with the baseline, agreement."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from itertools import combinations
from typing import Any

import numpy as np

from alignpro_lite.eval.answers import Answers
from alignpro_lite.eval.breakdown import adaptations, results_by_kind, segments
from alignpro_lite.eval.frontier import Pools, equal_calls_of, frontier_of
from alignpro_lite.eval.lineup import ALL, Lineup
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.eval.summary import (
    Agreement,
    Cell,
    DialCurve,
    Difference,
    JudgeAccuracy,
    ModelUsed,
    Summary,
    Versus,
    WinMatrix,
)
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.measure.comparisons import (
    answer_win_matrix,
    between_prompt_variance,
    holm_adjusted,
    judge_agreement,
    recovered_share,
    sign_flip_p,
    win_tie_loss,
)
from alignpro_lite.measure.length_control import length_controlled_win
from alignpro_lite.measure.statistics import (
    Estimate,
    answer_win_rate,
    bootstrap_mean,
    mean_difference,
    variance_difference,
    within_prompt_variances,
)
from alignpro_lite.measure.text import describe_answers, describe_rewrites

_PACKAGES = ("alignpro-lite", "llama-cpp-python", "onnxruntime", "onnxruntime-gpu", "numpy")


def summarise(
    lineup: Lineup,
    records: Sequence[ResultRow],
    pools: Pools,
    accuracies: Sequence[JudgeAccuracy],
    configuration: Mapping[str, Any],
    models: Sequence[ModelUsed] = (),
    dial: tuple[DialCurve, ...] = (),
    notes: Sequence[str] = (),
) -> Summary:
    """Work out what the records of an evaluation say.

    Args:
        lineup: What was compared.
        records: What every system did.
        pools: Answers to the unchanged prompts, for the best of n.
        accuracies: How often the judges are right.
        configuration: As it was resolved.
        models: What took part.
        dial: Curves of reward against KL.
        notes: What a reader has to know, one sentence each.
    """
    answers = Answers.of(lineup, records)
    by_system = {name: list(rows.values()) for name, rows in answers.rows.items()}
    return Summary(
        baseline=lineup.baseline,
        oracle=lineup.oracle,
        judges=lineup.judges,
        data=tuple(lineup.prompts),
        systems=tuple(answers.rows),
        cells=tuple(_cells(answers)),
        versus=_against_baseline(answers),
        controls=tuple(name for name in lineup.controls if name in answers.rows),
        differences=tuple(_differences(answers)),
        constant=lineup.constant if lineup.constant in answers.rows else None,
        by_kind=tuple(results_by_kind(answers)),
        adaptations=adaptations(answers),
        segments=segments(answers),
        frontier=tuple(frontier_of(answers, pools)),
        equal_calls=tuple(equal_calls_of(answers, pools)),
        accuracies=tuple(accuracies),
        matrices=_win_matrices(answers),
        agreements=_agreements(answers),
        rewrites={
            name: describe_rewrites(
                [record.prompt for record in rows for _ in record.sent],
                [sent for record in rows for sent in record.sent],
            )
            for name, rows in by_system.items()
        },
        answers={
            name: describe_answers([answer for record in rows for answer in record.answers])
            for name, rows in by_system.items()
        },
        dial=dial,
        models=tuple(models),
        configuration=configuration,
        versions=dict(_versions()),
        cost={name: sum(record.seconds for record in rows) for name, rows in by_system.items()},
        notes=(*notes, *answers.unscored_notes()),
    )


def _cells(answers: Answers) -> Iterator[Cell]:
    """Every system on every data set under every judge.

    A system that answers only some data sets has no cell for ALL: its mean would be over other
    prompts than those next to it.
    """
    seed = answers.lineup.seed
    for data in answers.lineup.data:
        for system in answers.rows:
            places = answers.places(data, system)
            if len(places) < 2 or answers.is_partial(data, system):
                continue
            kl = [np.mean(r) for p in places if (r := answers.rows[system][p].log_ratios)]
            words = float(answers.words(system, places).mean())
            for judge in answers.lineup.judges:
                rewards = answers.rewards(system, places, judge)
                yield Cell(
                    data=data,
                    system=system,
                    judge=judge,
                    prompts=rewards.shape[0],
                    answers=rewards.shape[1],
                    mean=bootstrap_mean(rewards.mean(axis=1), seed),
                    within=bootstrap_mean(within_prompt_variances(rewards), seed),
                    between=between_prompt_variance(rewards),
                    words=words,
                    kl=float(np.mean(kl)) if kl else None,
                )


def _against_baseline(answers: Answers) -> tuple[Versus, ...]:
    """Every system compared with the baseline, its p values corrected judge by judge."""
    baseline = answers.lineup.baseline
    found = []
    for judge in answers.lineup.judges:
        raw = [
            _versus(answers, data, system, judge)
            for data in answers.lineup.data
            for system in answers.rows
            if system != baseline
            and not answers.is_partial(data, system)
            and len(answers.places(data, system, baseline)) >= 2
        ]
        adjusted = holm_adjusted([versus.p for versus in raw])
        found += [replace(versus, p_adjusted=p) for versus, p in zip(raw, adjusted, strict=True)]
    return tuple(found)


def _versus(answers: Answers, data: str, system: str, judge: str) -> Versus:
    baseline, seed = answers.lineup.baseline, answers.lineup.seed
    places = answers.places(data, system, baseline)
    first, second = (answers.rewards(name, places, judge) for name in (system, baseline))
    lengths = (answers.words(name, places) for name in (system, baseline))
    win, tie, loss = win_tie_loss(first, second)
    p = sign_flip_p(first.mean(axis=1) - second.mean(axis=1), seed)
    return Versus(
        data=data,
        system=system,
        judge=judge,
        gain=mean_difference(first, second, seed),
        p=p,
        p_adjusted=p,
        win=win,
        tie=tie,
        loss=loss,
        answer_win=answer_win_rate(first, second, seed),
        length_controlled=length_controlled_win(first, second, *lengths),
        variance=variance_difference(first, second, seed),
        recovered=_recovered(answers, data, system, judge),
    )


def _recovered(answers: Answers, data: str, system: str, judge: str) -> Estimate | None:
    lineup = answers.lineup
    if lineup.oracle in (None, system) or lineup.oracle not in answers.rows:
        return None
    if answers.is_partial(data, lineup.oracle):
        return None
    names = (system, lineup.baseline, lineup.oracle)
    places = answers.places(data, *names)
    if len(places) < 2:
        return None
    own, plain, best = (answers.rewards(name, places, judge) for name in names)
    return recovered_share(own, plain, best, lineup.seed)


def _differences(answers: Answers) -> Iterator[Difference]:
    """Every two systems but the baseline, paired by the prompts that both have answered."""
    lineup = answers.lineup
    systems = [name for name in answers.rows if name != lineup.baseline]
    for judge in lineup.judges:
        for first, second in combinations(systems, 2):
            places = answers.places(ALL, first, second)
            if len(places) >= 2:
                own, other = (answers.rewards(name, places, judge) for name in (first, second))
                gain = mean_difference(own, other, lineup.seed)
                yield Difference(first, second, judge, len(places), gain)


def _win_matrices(answers: Answers) -> tuple[WinMatrix, ...]:
    """Who beats whom; two systems meet on the prompts that both have answered."""
    systems = tuple(answers.rows)
    return tuple(
        WinMatrix(
            judge,
            systems,
            tuple(
                tuple(_win_rate(answers, row, column, judge) for column in systems)
                for row in systems
            ),
        )
        for judge in answers.lineup.judges
    )


def _win_rate(answers: Answers, first: str, second: str, judge: str) -> float:
    places = answers.places(ALL, first, second)
    if first == second or not places:
        return 0.5
    arms = [answers.rewards(name, places, judge) for name in (first, second)]
    return float(answer_win_matrix(arms)[0, 1])


def _agreements(answers: Answers) -> tuple[Agreement, ...]:
    """How often two judges prefer the same one of a system's and the baseline's answers.

    Every system meets the baseline on the prompts that all systems for all data have answered.
    """
    lineup = answers.lineup
    baseline = lineup.baseline
    systems = [
        name for name in answers.rows if name != baseline and lineup.answers_everything(name)
    ]
    places = answers.places(ALL, baseline, *systems) if systems else []
    if len(places) < 2:
        return ()
    margins = {
        judge: np.concatenate(
            [
                answers.rewards(system, places, judge) - answers.rewards(baseline, places, judge)
                for system in systems
            ],
            axis=1,
        )
        for judge in lineup.judges
    }
    return tuple(
        Agreement(first, second, judge_agreement(margins[first], margins[second], lineup.seed))
        for first, second in combinations(lineup.judges, 2)
    )


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield "system", f"{platform.system()} {platform.machine()}, {usable_cores()} cores"
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
