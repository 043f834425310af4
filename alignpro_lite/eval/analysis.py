"""From records to what they say: means, variances, comparisons with the baseline, agreement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from alignpro_lite.eval.config import EvalConfig
from alignpro_lite.eval.results import ResultRow
from alignpro_lite.eval.summary import ALL, Agreement, Cell, Versus, WinMatrix
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
    FloatArray,
    answer_win_rate,
    bootstrap_mean,
    mean_difference,
    variance_difference,
    within_prompt_variances,
)

Place = tuple[str, int]
"""A prompt: its data set and its place there."""


@dataclass(frozen=True)
class Answers:
    """The records of an evaluation, by system and prompt.

    Attributes:
        config: What was compared.
        rows: Records by system, and by prompt in the order of the data.
    """

    config: EvalConfig
    rows: Mapping[str, Mapping[Place, ResultRow]]

    @classmethod
    def of(cls, config: EvalConfig, records: Sequence[ResultRow]) -> Answers:
        """Sort records by system and prompt."""
        order = {section.name: place for place, section in enumerate(config.data)}
        ordered = sorted(records, key=lambda one: (order[one.data], one.number))
        rows: dict[str, dict[Place, ResultRow]] = {one.name: {} for one in config.system}
        for one in ordered:
            rows[one.system][one.data, one.number] = one
        return cls(config, {name: found for name, found in rows.items() if found})

    @property
    def judges(self) -> tuple[str, ...]:
        """Names of the rewards, without their parts."""
        return tuple(one.name for one in self.config.judge)

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data sets, ALL last where there are several."""
        names = tuple(one.name for one in self.config.data)
        return (*names, ALL) if len(names) > 1 else names

    def is_partial(self, data: str, system: str) -> bool:
        """Whether a system answers only some of the data sets that ALL stands for."""
        every = {one.name for one in self.config.data}
        return data == ALL and any(
            one.name == system and one.data and set(one.data) < every for one in self.config.system
        )

    def places(self, data: str, *systems: str) -> list[Place]:
        """The prompts of a data set that all of some systems have answered."""
        first, *others = (self.rows[name] for name in systems)
        return [
            place
            for place in first
            if data in (place[0], ALL) and all(place in rows for rows in others)
        ]

    def rewards(self, system: str, places: Sequence[Place], judge: str) -> FloatArray:
        """Scores of a system's answers, shape (prompts, answers)."""
        return np.array([self.rows[system][place].rewards[judge] for place in places])

    def words(self, system: str, places: Sequence[Place]) -> FloatArray:
        """Lengths of a system's answers in words, shape (prompts, answers)."""
        rows = [self.rows[system][place].answers for place in places]
        return np.array([[len(answer.split()) for answer in row] for row in rows], np.float64)


def cells(answers: Answers) -> Iterator[Cell]:
    """Every system on every data set under every judge.

    A system that answers only some data sets has no cell for ALL: beside means over other prompts
    its own would mislead.
    """
    for data in answers.data:
        for system in answers.rows:
            places = answers.places(data, system)
            if len(places) < 2 or answers.is_partial(data, system):
                continue
            kl = [np.mean(r) for p in places if (r := answers.rows[system][p].log_ratios)]
            words = float(answers.words(system, places).mean())
            for judge in answers.judges:
                rewards = answers.rewards(system, places, judge)
                yield Cell(
                    data=data,
                    system=system,
                    judge=judge,
                    prompts=rewards.shape[0],
                    answers=rewards.shape[1],
                    mean=bootstrap_mean(rewards.mean(axis=1), answers.config.seed),
                    within=bootstrap_mean(within_prompt_variances(rewards), answers.config.seed),
                    between=between_prompt_variance(rewards),
                    words=words,
                    kl=float(np.mean(kl)) if kl else None,
                )


def versus(answers: Answers) -> tuple[Versus, ...]:
    """Every system held against the baseline, its p values corrected judge by judge."""
    found = []
    for judge in answers.judges:
        raw = [
            _versus(answers, data, system, judge)
            for data in answers.data
            for system in answers.rows
            if system != answers.config.baseline
            and not answers.is_partial(data, system)
            and len(answers.places(data, system, answers.config.baseline)) >= 2
        ]
        adjusted = holm_adjusted([one.p for one in raw])
        found += [replace(one, p_adjusted=float(p)) for one, p in zip(raw, adjusted, strict=True)]
    return tuple(found)


def _versus(answers: Answers, data: str, system: str, judge: str) -> Versus:
    baseline, seed = answers.config.baseline, answers.config.seed
    places = answers.places(data, system, baseline)
    first, second = (answers.rewards(name, places, judge) for name in (system, baseline))
    lengths = (answers.words(name, places) for name in (system, baseline))
    counted = win_tie_loss(first, second)
    p = sign_flip_p(first.mean(axis=1) - second.mean(axis=1), seed)
    return Versus(
        data=data,
        system=system,
        judge=judge,
        gain=mean_difference(first, second, seed),
        p=p,
        p_adjusted=p,
        win=counted.win,
        tie=counted.tie,
        loss=counted.loss,
        answer_win=answer_win_rate(first, second, seed),
        length_controlled=length_controlled_win(first, second, *lengths),
        variance=variance_difference(first, second, seed),
        recovered=_recovered(answers, data, system, judge),
    )


def _recovered(answers: Answers, data: str, system: str, judge: str) -> Estimate | None:
    oracle = answers.config.oracle
    if oracle is None or oracle.name == system or oracle.name not in answers.rows:
        return None
    if answers.is_partial(data, oracle.name):
        return None
    names = (system, answers.config.baseline, oracle.name)
    places = answers.places(data, *names)
    if len(places) < 2:
        return None
    own, plain, best = (answers.rewards(name, places, judge) for name in names)
    return recovered_share(own, plain, best, answers.config.seed)


def matrices(answers: Answers) -> tuple[WinMatrix, ...]:
    """Who beats whom; two systems meet on the prompts that both have answered."""
    systems = tuple(answers.rows)
    return tuple(
        WinMatrix(
            judge,
            systems,
            tuple(tuple(_rate(answers, one, other, judge) for other in systems) for one in systems),
        )
        for judge in answers.judges
    )


def _rate(answers: Answers, one: str, other: str, judge: str) -> float:
    places = answers.places(ALL, one, other)
    if one == other or not places:
        return 0.5
    arms = [answers.rewards(name, places, judge) for name in (one, other)]
    return float(answer_win_matrix(arms)[0, 1])


def agreements(answers: Answers) -> tuple[Agreement, ...]:
    """How often two judges prefer the same one of a system's and the baseline's answers.

    Every system meets the baseline on the prompts that all systems for all data have answered.
    """
    baseline = answers.config.baseline
    everywhere = [
        one.name for one in answers.config.system if not answers.is_partial(ALL, one.name)
    ]
    systems = [name for name in everywhere if name in answers.rows and name != baseline]
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
        for judge in answers.judges
    }
    return tuple(
        Agreement(one, other, judge_agreement(margins[one], margins[other], answers.config.seed))
        for one, other in combinations(answers.judges, 2)
    )
