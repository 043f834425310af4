"""Runs an evaluation: every system answers every prompt once, and nothing is computed twice.

Prompts are taken a few at a time, and all systems answer those before the next ones. So an
interrupted evaluation has the same prompts in every system, and each is timed from the start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from tqdm import tqdm

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.eval.bench import Bench, System
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.eval.progress import TimeLeft, duration
from alignpro_lite.eval.records import (
    ResultRow,
    append_records,
    kept_scores,
    read_records,
    require_scores,
)
from alignpro_lite.eval.shared_answers import SharedAnswers

TOGETHER = 8
"""Prompts that a system answers in one go; the answers depend on it."""
_BAR = "{l_bar}{bar}| {n_fmt} of {total_fmt} prompts, {elapsed}{postfix}"


def portions_of(lineup: Lineup) -> Iterator[tuple[str, str, range]]:
    """All there is to do, in order: a data set, a system, and the places of some prompts."""
    for data, prompts in lineup.prompts.items():
        for first in range(0, len(prompts), TOGETHER):
            places = range(first, min(first + TOGETHER, len(prompts)))
            for system, answered in lineup.systems.items():
                if data in answered:
                    yield data, system, places


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
        note: Called with each progress message.

    Returns:
        All records, those of earlier runs included.

    Raises:
        RewardError: A judge scores nothing at all.
        AlignProError: A model is missing, failed, or the results are damaged.
    """
    done = {record.key: record for record in read_records(journal)}
    planned = dict.fromkeys(lineup.systems, 0)
    waiting = []
    for data, name, places in portions_of(lineup):
        planned[name] += len(places)
        if not all((data, name, place) in done for place in places):
            waiting.append((data, name, places))
    if not waiting:
        return list(done.values())
    total = sum(planned.values())
    if done:
        note(f"Resuming: {len(done)} of {total} prompts are already answered.")
    systems = {name: open_system(name) for name in dict.fromkeys(name for _, name, _ in waiting)}
    left = TimeLeft(planned)
    for record in done.values():
        left.add(record.system, 1, record.seconds)
    with tqdm(total=total, initial=len(done), unit="prompt", bar_format=_BAR) as bar:
        for _, systems_of_places in groupby(waiting, key=itemgetter(0, 2)):
            shared = replace(bench, target=SharedAnswers(bench.target))
            for data, name, places in systems_of_places:
                records = _answered(lineup, data, name, places, systems[name], shared)
                require_scores([*done.values(), *records], lineup.judges)
                append_records(journal, records)
                done |= {record.key: record for record in records}
                left.add(name, len(records), sum(record.seconds for record in records))
                rest = left.seconds
                shown = "timing the systems" if rest is None else f"{duration(rest)} left"
                bar.set_postfix_str(f"{shown}, {name}", refresh=False)
                bar.update(len(records))
    return list(done.values())


def _answered(
    lineup: Lineup, data: str, name: str, places: range, system: System, bench: Bench
) -> list[ResultRow]:
    """Let a system answer; the seed is that of the prompts, the same for every system."""
    prompts = lineup.prompts[data][places.start : places.stop]
    started = time.monotonic()
    response = system(bench, prompts, stream_seed(lineup.seed, places.start))
    seconds = (time.monotonic() - started) / len(prompts)
    return [
        ResultRow(
            data=data,
            system=name,
            number=places.start + place,
            prompt=prompt,
            sent=tuple(response.sent[place]),
            answers=tuple(response.answers[place]),
            rewards={
                judge: kept_scores(values[place]) for judge, values in response.rewards.items()
            },
            log_ratios=tuple(response.log_ratios[place]) if response.log_ratios else (),
            reason=response.reasons[place] if response.reasons else "",
            seconds=seconds,
            cut=tuple(response.cut[place]),
        )
        for place, prompt in enumerate(prompts)
    ]
