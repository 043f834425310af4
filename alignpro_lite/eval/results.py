"""results.jsonl: one line for every prompt that a system has answered, written as it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.registry.record import parse_record

FILE = "results.jsonl"


@dataclass(frozen=True)
class Record:
    """What one system did with one prompt.

    Attributes:
        data: Name of the data set.
        system: Name of the system.
        number: Place of the prompt in its data set.
        prompt: x.
        sent: x' of every answer.
        answers: y of every answer.
        rewards: r*(x, y) of every answer, by judge.
        log_ratios: log q(x'|x) - log ρ_sft(x'|x) of the rewrites; empty without a prompter.
        reason: Why that prompt was sent, where something was chosen; else empty.
        seconds: What it took.
    """

    data: str
    system: str
    number: int
    prompt: str
    sent: tuple[str, ...]
    answers: tuple[str, ...]
    rewards: Mapping[str, tuple[float, ...]]
    log_ratios: tuple[float, ...]
    reason: str
    seconds: float

    @property
    def key(self) -> tuple[str, str, int]:
        """What is computed once: data set, system, prompt."""
        return self.data, self.system, self.number


def append(journal: Journal, records: Sequence[Record]) -> None:
    """Add finished prompts to the results of an evaluation, all of them at once."""
    journal.append([asdict(one) for one in records])


def read(journal: Journal) -> list[Record]:
    """Read what is done, each prompt of a system once.

    Args:
        journal: `FILE` of an evaluation.

    Raises:
        InputError: A line is damaged, or belongs to another configuration.
        BundleError: A line lacks a value.
    """
    records = [parse_record(Record, row, journal.file, CURE) for row in journal.read()]
    plain = [
        replace(one, rewards={name: tuple(values) for name, values in one.rewards.items()})
        for one in records
    ]
    return list({one.key: one for one in plain}.values())
