"""results.jsonl: one line for every prompt that a system has answered, written as it is done."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import msgspec

from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.registry.record import Origin, Record, parse_written

RESULTS = "results.jsonl"


class ResultRow(Record):
    """What one system did with one prompt.

    Attributes:
        data: Name of the data set.
        system: Name of the system.
        number: Place of the prompt in its data set.
        prompt: x.
        sent: x' of every answer.
        answers: y of every answer.
        rewards: r*(x, y) of every answer, by judge; None for one without a score.
        log_ratios: log q(x'|x) - log ρ_sft(x'|x) of the rewrites; empty without a prompter.
        reason: Why that rewrite was sent, where something was chosen; otherwise empty.
        seconds: How long it took.
        cut: Whether each answer was cut at the most tokens that it may have.
    """

    data: str
    system: str
    number: int
    prompt: str
    sent: tuple[str, ...]
    answers: tuple[str, ...]
    rewards: Mapping[str, tuple[float | None, ...]]
    log_ratios: tuple[float, ...]
    reason: str
    seconds: float
    cut: tuple[bool, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        """What is computed once: data set, system, prompt."""
        return self.data, self.system, self.number


def kept_scores(scores: FloatArray) -> tuple[float | None, ...]:
    """Scores as a journal holds them: JSON has no NaN."""
    return tuple(None if math.isnan(score) else float(score) for score in scores)


def require_scores(records: Collection[ResultRow], judges: Sequence[str]) -> None:
    """Refuse a judge that scores nothing at all.

    Args:
        records: What was done so far, at least one prompt.
        judges: Their names.

    Raises:
        RewardError: Names the judge.
    """
    for judge in judges:
        if all(score is None for record in records for score in record.rewards[judge]):
            answers = sum(len(record.answers) for record in records)
            raise RewardError(
                f"The judge {judge} must score answers, found no score for any of {answers}.",
                "Fix the reward; the same command goes on. `alignpro-lite eval pairs` tests it.",
            )


def append_records(journal: Journal, records: Sequence[ResultRow]) -> None:
    """Add finished prompts to the results of an evaluation, all of them at once."""
    journal.append([msgspec.to_builtins(record) for record in records])


def read_records(journal: Journal) -> list[ResultRow]:
    """Read what is done, each prompt of a system once.

    Args:
        journal: `RESULTS` of an evaluation.

    Raises:
        InputError: A line is damaged, lacks a value, or belongs to another configuration.
    """
    origin = Origin(journal.file, InputError, CURE)
    records = [parse_written(ResultRow, row, origin) for row in journal.read()]
    return list({record.key: record for record in records}.values())
