"""The frontier: what the best of n answers to the unchanged prompt is worth, for every n.

A system that tries several answers and keeps or chooses by their rewards has to be compared with
this: whoever can pay for n calls of the target can also ask the bare prompt n times. One pool of
answers to each prompt gives every n at once (`measure.best_of`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.errors import InputError
from alignpro_lite.eval.answers import Answers, PromptPlace
from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.eval.lineup import ALL, Lineup
from alignpro_lite.eval.records import ResultRow, kept_scores
from alignpro_lite.eval.runner import TOGETHER
from alignpro_lite.eval.summary import BestOf, EqualCalls
from alignpro_lite.measure.best_of import expected_best
from alignpro_lite.measure.statistics import FloatArray, bootstrap_mean
from alignpro_lite.registry.record import Origin, Record, parse_written, plain

FRONTIER = "frontier.jsonl"
_SEED = 3
"""Number of the random stream of the answers, which no system shares."""

Pools = Mapping[PromptPlace, Mapping[str, FloatArray]]
"""Rewards of answers to unchanged prompts, by prompt and judge, each of shape (answers,). Answers
that a judge could not score are in none of them."""


class PoolRow(Record):
    """More answers to one unchanged prompt.

    Attributes:
        data: Name of the data set.
        number: Place of the prompt in its data set.
        rewards: r*(x, y) of every answer, by judge; None for one without a score.
    """

    data: str
    number: int
    rewards: Mapping[str, tuple[float | None, ...]]


def answer_pools(
    lineup: Lineup,
    bench: Bench,
    records: Sequence[ResultRow],
    journal: Journal,
    note: Callable[[str], None],
) -> Pools:
    """Take the baseline's answers, and ask for more where a system costs more calls.

    Args:
        lineup: Says how many calls an answer of each system costs.
        bench: Answers and scores.
        records: What the systems did; of these, the baseline's answers count.
        journal: `FRONTIER`; holds what earlier runs asked, and gets every new row at once.
        note: Called with each progress message.

    Raises:
        AlignProError: The target or a judge failed, or the file is damaged.
    """
    origin = Origin(journal.file, InputError, CURE)
    rows = [parse_written(PoolRow, row, origin) for row in journal.read()]
    more = {(row.data, row.number): row for row in rows}
    waiting = [
        (data, places, count)
        for data, places, count in _portions(lineup, bench.plan.count)
        if not all((data, place) in more for place in places)
    ]
    if waiting:
        note("Drawing answers for the best of as many calls.")
    for data, places, count in tqdm(waiting, unit="portion", disable=not waiting):
        found = _answered(lineup, bench, data, places, count)
        journal.append([plain(row) for row in found])
        more |= {(row.data, row.number): row for row in found}
    return {
        (record.data, record.number): _pool(record, more.get((record.data, record.number)))
        for record in records
        if record.system == lineup.baseline
    }


def _portions(lineup: Lineup, known: int) -> Iterator[tuple[str, range, int]]:
    """A data set, the places of some prompts, and how many more answers each of them needs."""
    for data, prompts in lineup.prompts.items():
        most = max((lineup.calls[name] for name in lineup.searching(data)), default=0)
        if most > known:
            for first in range(0, len(prompts), TOGETHER):
                yield data, range(first, min(first + TOGETHER, len(prompts))), most - known


def _answered(lineup: Lineup, bench: Bench, data: str, places: range, count: int) -> list[PoolRow]:
    prompts = lineup.prompts[data][places.start : places.stop]
    seed = stream_seed(stream_seed(lineup.seed, places.start), _SEED)
    rewards = bench.answer(prompts, [[prompt] * count for prompt in prompts], seed).rewards
    return [
        PoolRow(
            data=data,
            number=number,
            rewards={judge: kept_scores(values[row]) for judge, values in rewards.items()},
        )
        for row, number in enumerate(places)
    ]


def _pool(record: ResultRow, more: PoolRow | None) -> dict[str, FloatArray]:
    """The answers of the baseline and more of them that every judge could score."""
    extra = more.rewards if more else {}
    rows = [(*scores, *extra.get(judge, ())) for judge, scores in record.rewards.items()]
    table = np.array(rows, np.float64)
    known = table[:, ~np.isnan(table).any(axis=0)]
    return dict(zip(record.rewards, known, strict=True))


def frontier_of(answers: Answers, pools: Pools) -> Iterator[BestOf]:
    """The best of 2, 4, 8, ... answers, and of as many as a system asks for, under every judge."""
    lineup = answers.lineup
    answered = answers.places(ALL, lineup.baseline) if lineup.baseline in answers.rows else []
    places = [place for place in answered if place in pools]
    most = max((len(pools[place][lineup.judges[0]]) for place in places), default=0)
    doubled = {2**power for power in range(1, most.bit_length())}
    for judge in lineup.judges:
        for calls in sorted(doubled | {n for n in lineup.calls.values() if n <= most}):
            shared = _with_room(pools, places, calls)
            if len(shared) >= 2:
                gains = _best(answers, pools, shared, judge, calls)
                gains -= answers.rewards(lineup.baseline, shared, judge).mean(axis=1)
                yield BestOf(calls, judge, len(shared), bootstrap_mean(gains, lineup.seed))


def equal_calls_of(answers: Answers, pools: Pools) -> Iterator[EqualCalls]:
    """Every system that asks several times for an answer, beside the best of as many answers."""
    lineup = answers.lineup
    for judge in lineup.judges:
        for system, calls in lineup.calls.items():
            if system not in answers.rows:
                continue
            shared = _with_room(pools, answers.places(ALL, system, lineup.baseline), calls)
            if len(shared) < 2:
                continue
            own, plain = (
                answers.rewards(name, shared, judge).mean(axis=1)
                for name in (system, lineup.baseline)
            )
            best = _best(answers, pools, shared, judge, calls)
            gain, frontier, difference = (
                bootstrap_mean(values, lineup.seed)
                for values in (own - plain, best - plain, own - best)
            )
            yield EqualCalls(system, judge, calls, len(shared), gain, frontier, difference)


def _with_room(pools: Pools, places: Sequence[PromptPlace], calls: int) -> list[PromptPlace]:
    """The prompts with that many answers."""
    return [
        place
        for place in places
        if place in pools and all(len(scores) >= calls for scores in pools[place].values())
    ]


def _best(
    answers: Answers, pools: Pools, places: Sequence[PromptPlace], judge: str, calls: int
) -> FloatArray:
    """Reward of the best of `calls` answers, chosen by the first judge, for each prompt."""
    chooser = answers.lineup.judges[0]
    return np.array(
        [
            expected_best(pools[place][chooser][None], pools[place][judge][None], calls)[0]
            for place in places
        ]
    )
