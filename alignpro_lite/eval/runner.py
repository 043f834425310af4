"""Runs an evaluation: every system answers every prompt once, and nothing is computed twice.

Prompts are taken a few at a time, and all systems answer those before the next ones. So an
interrupted evaluation has the same prompts in every system, and each is timed from the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.eval.bench import Bench, System
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.eval.progress import Bar, TimeLeft
from alignpro_lite.eval.records import ResultRow, append_records, read_records

TOGETHER = 8
"""Prompts that a system answers in one go; the answers depend on it."""


@dataclass(frozen=True)
class Portion:
    """Some prompts of a data set for one system.

    Attributes:
        data: Name of the data set.
        system: Name of the system.
        first: Place of the first prompt.
        prompts: The prompts.
    """

    data: str
    system: str
    first: int
    prompts: Sequence[str]

    @property
    def keys(self) -> list[tuple[str, str, int]]:
        """Keys of its records."""
        places = range(self.first, self.first + len(self.prompts))
        return [(self.data, self.system, place) for place in places]


def portions_of(lineup: Lineup) -> Iterator[Portion]:
    """All there is to do, in order."""
    for data, prompts in lineup.prompts.items():
        for first in range(0, len(prompts), TOGETHER):
            for system, answered in lineup.systems.items():
                if data in answered:
                    yield Portion(data, system, first, prompts[first : first + TOGETHER])


def answer_all(
    lineup: Lineup,
    bench: Bench,
    open_system: Callable[[str], System],
    journal: Journal,
    note: Callable[[str], None],
) -> list[ResultRow]:
    """Answer every prompt that has not been answered yet.

    Args:
        lineup: Which systems answer which prompts.
        bench: Answers and scores what they send.
        open_system: Gives a system by its name; asked once for each that has something to do,
            before anything is answered.
        journal: `RESULTS`; holds what earlier runs did, and gets every new record at once.
        note: Told what people who wait should know.

    Returns:
        All records, those of earlier runs included.

    Raises:
        AlignProError: A model is missing, failed, or the results are damaged.
    """
    done = {record.key: record for record in read_records(journal)}
    planned = dict.fromkeys(lineup.systems, 0)
    waiting = []
    for portion in portions_of(lineup):
        planned[portion.system] += len(portion.prompts)
        if not all(key in done for key in portion.keys):
            waiting.append(portion)
    if not waiting:
        return list(done.values())
    total = sum(planned.values())
    if done:
        note(f"Resuming: {len(done)} of {total} prompts are already answered.")
    systems = {name: open_system(name) for name in {portion.system: None for portion in waiting}}
    left = TimeLeft(planned)
    for record in done.values():
        left.add(record.system, 1, record.seconds)
    with Bar(left, total, len(done)) as bar:
        for portion in waiting:
            records = _answered(portion, systems[portion.system], bench, lineup.seed)
            append_records(journal, records)
            done |= {record.key: record for record in records}
            left.add(portion.system, len(records), sum(record.seconds for record in records))
            bar.advance(len(records), portion.system)
    return list(done.values())


def _answered(portion: Portion, system: System, bench: Bench, seed: int) -> list[ResultRow]:
    """Let a system answer; the seed is that of the prompts, the same for every system."""
    started = time.monotonic()
    response = system.respond(bench, portion.prompts, stream_seed(seed, portion.first))
    seconds = (time.monotonic() - started) / len(portion.prompts)
    return [
        ResultRow(
            data=portion.data,
            system=portion.system,
            number=portion.first + place,
            prompt=prompt,
            sent=tuple(response.sent[place]),
            answers=tuple(response.answers[place]),
            rewards={
                name: tuple(map(float, values[place])) for name, values in response.rewards.items()
            },
            log_ratios=tuple(response.log_ratios[place]) if response.log_ratios else (),
            reason=response.reasons[place] if response.reasons else "",
            seconds=seconds,
        )
        for place, prompt in enumerate(portion.prompts)
    ]
