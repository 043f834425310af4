"""Runs an evaluation: every system answers every prompt once, and nothing is computed twice.

Prompts are taken a few at a time, and all systems answer those before the next ones, so that an
interrupted evaluation has the same prompts in every system, and each is timed from the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.eval import results
from alignpro_lite.eval.arms import Bench
from alignpro_lite.eval.assemble import Loaded, open_system
from alignpro_lite.eval.config import EvalConfig
from alignpro_lite.eval.opening import Evaluation
from alignpro_lite.eval.progress import Bar, TimeLeft
from alignpro_lite.eval.results import ResultRow
from alignpro_lite.eval.systems import Response, System

TOGETHER = 8
"""Prompts that a system answers in one go; part of what fixes the answers."""


@dataclass(frozen=True)
class Task:
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
    prompts: tuple[str, ...]

    @property
    def keys(self) -> list[tuple[str, str, int]]:
        """Keys of its records."""
        places = range(self.first, self.first + len(self.prompts))
        return [(self.data, self.system, place) for place in places]


def tasks_of(config: EvalConfig, prompts: Mapping[str, Sequence[str]]) -> Iterator[Task]:
    """All there is to do, in order."""
    for data, rows in prompts.items():
        for first in range(0, len(rows), TOGETHER):
            some = tuple(rows[first : first + TOGETHER])
            for system in config.system:
                if not system.data or data in system.data:
                    yield Task(data, system.name, first, some)


def run(evaluation: Evaluation, note: Callable[[str], None]) -> list[ResultRow]:
    """Answer what is not answered yet.

    Args:
        evaluation: What to compare.
        note: Told what people who wait should know.

    Returns:
        All records, those of earlier runs included.

    Raises:
        AlignProError: A model is missing, failed, or the results are damaged.
    """
    config, loaded = evaluation.config, evaluation.loaded
    journal = evaluation.journal(results.FILE)
    done = {one.key: one for one in results.read(journal)}
    tasks = list(tasks_of(config, evaluation.prompts))
    planned, seconds = dict.fromkeys((one.name for one in config.system), 0), dict[str, float]()
    for task in tasks:
        planned[task.system] += len(task.prompts)
    for record in done.values():
        seconds[record.system] = seconds.get(record.system, 0.0) + record.seconds
    left = TimeLeft(planned, seconds)
    open_tasks = []
    for task in tasks:
        if all(key in done for key in task.keys):
            left.add(task.system, len(task.prompts), 0.0)
        else:
            open_tasks.append(task)
    if not open_tasks:
        return list(done.values())
    if done:
        note(f"Going on: {len(done)} of {sum(planned.values())} prompts are answered.")
    needed = {task.system for task in open_tasks}
    systems = {
        section.name: open_system(section, loaded, evaluation.places, evaluation.prompts)
        for section in config.system
        if section.name in needed
    }
    with Bar(left, sum(planned.values()), len(done)) as bar:
        for task in open_tasks:
            records = _answered(task, systems[task.system], config, loaded)
            results.append(journal, records)
            done |= {one.key: one for one in records}
            left.add(task.system, len(records), sum(one.seconds for one in records))
            bar.advance(len(records), task.system)
    return list(done.values())


def _answered(task: Task, system: System, config: EvalConfig, loaded: Loaded) -> list[ResultRow]:
    """Let a system answer; the seed is that of the prompts, the same for every system."""
    begun = time.monotonic()
    seed = stream_seed(config.seed, task.first)
    plan = config.answers
    bench = Bench(loaded.target, loaded.judges, task.prompts, plan, seed)
    response = system.respond(bench)
    seconds = (time.monotonic() - begun) / len(task.prompts)
    return [_record(task, place, response, seconds) for place in range(len(task.prompts))]


def _record(task: Task, place: int, response: Response, seconds: float) -> ResultRow:
    arm = response.arm
    return ResultRow(
        data=task.data,
        system=task.system,
        number=task.first + place,
        prompt=task.prompts[place],
        sent=arm.sent[place],
        answers=arm.answers[place],
        rewards={name: tuple(map(float, values[place])) for name, values in arm.rewards.items()},
        log_ratios=response.log_ratios[place],
        reason=response.reasons[place],
        seconds=seconds,
    )
