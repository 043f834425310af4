"""The batched loop under a scripted stepper that checks every call it gets."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.decoding.engine import Engine, Stream, Submission
from alignpro_lite.decoding.rows import CallInterruptedError, chunk_end
from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.errors import (
    AlignProError,
    CancelledError,
    ContextOverflowError,
    DeviceError,
    ModelFileError,
)

STOP = 0
PATIENCE = 10.0
"""Seconds after which a reader counts as hanging."""


@dataclass
class Script:
    """A sampler that draws given tokens, and the prompt that its row must begin with."""

    prompt: tuple[int, ...]
    tokens: list[int]
    said: int = 0
    released: int = 0

    def next(self) -> int:
        self.said += 1
        return self.tokens[self.said - 1]


@dataclass
class FakeStepper:
    """Rows of cells that may be shared; fails at once if the loop asks for nonsense."""

    rows: int = 4
    row_capacity: int = 100
    capacity: int = 100
    micro_batch: int = 8
    can_trim: bool = True
    before_prefill: Callable[[], object] | None = None
    before_decode: Callable[[], object] | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    closed: bool = False
    most_cells: int = 0

    def __post_init__(self) -> None:
        self._cells: list[list[int]] = [[] for _ in range(self.rows)]
        self._token_of: list[int] = []
        self._outputs: list[int] = []
        self._owner: int | None = None
        self._interrupted = threading.Event()

    def tokens_of(self, row: int) -> list[int]:
        return [self._token_of[cell] for cell in self._cells[row]]

    def prefill(self, row, tokens, start):
        self._note("prefill", row, tuple(tokens), start)
        if self.before_prefill:
            self.before_prefill()
        assert 0 < len(tokens) <= self.micro_batch
        assert start == len(self._cells[row])
        if self._interrupted.is_set():
            self._append(row, tokens[: len(tokens) // 2])
            raise CallInterruptedError
        self._append(row, tokens)
        self._outputs = [row]

    def decode(self, rows, tokens, starts):
        self._note("decode", tuple(rows), tuple(tokens))
        if self.before_decode:
            self.before_decode()
        assert len(set(rows)) == len(rows) > 0
        assert list(starts) == [len(self._cells[row]) for row in rows]
        if self._interrupted.is_set():
            self._append(rows[0], tokens[:1])
            raise CallInterruptedError
        for row, token in zip(rows, tokens, strict=True):
            self._append(row, [token])
        self._outputs = list(rows)

    def interrupt(self):
        self._interrupted.set()

    def resume(self):
        self._interrupted.clear()

    def draw(self, output, sampler):
        assert sampler.released == 0
        expected = [*sampler.prompt, *sampler.tokens[: sampler.said]]
        assert self.tokens_of(self._outputs[output]) == expected
        return Draw(sampler.next(), -1.0)

    def is_stop(self, token):
        return token == STOP

    def share(self, source, target, length):
        self._note("share", source, target, length)
        assert not self._cells[target]
        self._cells[target] = self._cells[source][:length]

    def trim(self, row, length):
        self._note("trim", row, length)
        if length and not self.can_trim:
            return False
        del self._cells[row][length:]
        return True

    def release(self, sampler):
        sampler.released += 1

    def close(self):
        assert not self.closed
        self.closed = True

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]

    def _note(self, *call: object) -> None:
        self._owner = self._owner or threading.get_ident()
        assert threading.get_ident() == self._owner, "called from two threads"
        assert not self.closed
        self.calls.append(call)

    def _append(self, row: int, tokens: list[int]) -> None:
        for token in tokens:
            self._cells[row].append(len(self._token_of))
            self._token_of.append(token)
        assert len(self._cells[row]) <= self.row_capacity
        used = len({cell for cells in self._cells for cell in cells})
        self.most_cells = max(self.most_cells, used)
        assert used <= self.capacity, f"{used} cells of {self.capacity} in use"


class Gate:
    """Lets the loop through one call at a time, as a test allows it."""

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)
        self._open = False

    def __call__(self) -> None:
        self._arrived.release()
        if not self._open:
            assert self._allowed.acquire(timeout=PATIENCE)

    def wait_for_loop(self) -> None:
        assert self._arrived.acquire(timeout=PATIENCE)

    def let_one_through(self) -> None:
        self._allowed.release()

    def open(self) -> None:
        self._open = True
        self._allowed.release()


@pytest.fixture
def start():
    """Start engines that are closed after the test."""
    engines = []

    def build(stepper: FakeStepper) -> Engine[Script]:
        engines.append(Engine(stepper, "fake", "Ask for less."))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()


def scripts(prompt, *sentences):
    return [Script(tuple(prompt), list(sentence)) for sentence in sentences]


def read(stream: Stream[Script]) -> list[int]:
    (tokens,) = read_aside(stream)()
    return tokens


def read_aside(*streams):
    """Read streams on threads of their own; call the result to join them."""
    results: list[object] = [None] * len(streams)

    def work(place: int) -> None:
        try:
            results[place] = [draw.token for draw in streams[place]]
        except AlignProError as error:
            results[place] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(streams))]
    for thread in threads:
        thread.start()

    def join():
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a reader hangs"
        return results

    return join


def test_sequences_of_one_job_share_one_prefill(start):
    stepper = FakeStepper()
    samplers = scripts([5, 6, 7], [1, 2, STOP], [3, STOP], [4, 4, 4, STOP])
    streams = start(stepper).submit([5, 6, 7], samplers, 10)
    assert [read(stream) for stream in streams] == [[1, 2, 0], [3, 0], [4, 4, 4, 0]]
    assert {stream.finish_reason for stream in streams} == {"stop"}
    assert len(stepper.named("prefill")) == 1
    assert [len(call[1]) for call in stepper.named("decode")] == [3, 2, 1]


def test_max_tokens_ends_a_sequence_with_length(start):
    stepper = FakeStepper()
    (stream,) = start(stepper).submit([5], scripts([5], [1, 2, 3]), 3)
    assert read(stream) == [1, 2, 3]
    assert stream.finish_reason == "length"
    assert len(stepper.named("decode")) == 2, "the last token is never decoded"


def test_a_stop_token_at_the_limit_is_a_stop(start):
    (stream,) = start(FakeStepper()).submit([5], scripts([5], [1, STOP]), 2)
    assert read(stream) == [1, STOP]
    assert stream.finish_reason == "stop"


def test_all_rows_may_end_at_their_first_token(start):
    engine = start(FakeStepper(rows=3))
    for _ in range(3):
        streams = engine.submit([5, 6], scripts([5, 6], [STOP], [STOP], [STOP]), 1)
        assert [read(stream) for stream in streams] == [[STOP]] * 3


def test_a_later_job_takes_the_rows_of_copies_that_ended(start):
    """Each draw took rows that had no memory yet, until all of them held a copy of the prompt."""
    stepper = FakeStepper(rows=9)
    engine = start(stepper)
    for last in (6, 7, 8):
        prompt = [5, 5, 5, last]
        streams = engine.submit(prompt, scripts(prompt, [1, STOP], [2, STOP], [3, STOP]), 5)
        assert [read(stream) for stream in streams] == [[1, 0], [2, 0], [3, 0]]
    assert {row for call in stepper.named("decode") for row in call[1]} == {0, 1, 2}


def test_a_second_job_joins_while_the_first_runs(start):
    gate = Gate()
    stepper = FakeStepper(before_decode=gate)
    engine = start(stepper)
    (first,) = engine.submit([5, 5], scripts([5, 5], [1, 1, 1, 1, STOP]), 10)
    gate.wait_for_loop()
    (second,) = engine.submit([6, 6], scripts([6, 6], [2, 2, STOP]), 10)
    gate.open()
    assert read(second) == [2, 2, 0]
    assert read(first) == [1, 1, 1, 1, 0]
    assert [len(call[1]) for call in stepper.named("decode")] == [1, 2, 2, 1]


def joint(prompt, *tokens):
    return Submission(prompt, scripts(prompt, *tokens), 5)


def test_prompts_submitted_together_share_their_common_beginning(start):
    """Many rewrites of one prompt: what they share is computed once."""
    stepper = FakeStepper(micro_batch=50)
    shared = list(range(10, 20))
    works = [joint([*shared, 30 + n, 40, 41], [1, STOP]) for n in range(3)]
    streams = start(stepper).submit_together(works)
    assert [read(stream) for (stream,) in streams] == [[1, STOP]] * 3
    assert [call[3] for call in stepper.named("prefill")] == [0, 10, 10]


def test_fresh_prompts_forget_what_was_there_and_still_share(start):
    stepper = FakeStepper(micro_batch=50)
    engine = start(stepper)
    prompt = list(range(10, 20))
    (before,) = engine.submit(prompt, scripts(prompt, [1, STOP]), 5)
    read(before)
    streams = engine.submit_together(
        [joint(prompt, [1, STOP]), joint(prompt, [2, STOP])], fresh=True
    )
    assert [read(stream) for (stream,) in streams] == [[1, STOP], [2, STOP]]
    assert [call[3] for call in stepper.named("prefill")] == [0, 0, 8]


def test_of_prompts_submitted_together_one_that_cannot_fit_refuses_all(start):
    stepper = FakeStepper(capacity=20)
    with pytest.raises(ContextOverflowError):
        start(stepper).submit_together([joint([5], [STOP]), joint([6] * 30, [STOP])])
    assert not stepper.calls


def test_cancel_before_start_draws_nothing(start):
    gate = Gate()
    stepper = FakeStepper(rows=1, before_decode=gate)
    engine = start(stepper)
    engine.submit([5], scripts([5], [1, 1, STOP]), 3)
    gate.wait_for_loop()
    (waiting,) = engine.submit([6], scripts([6], [2]), 1)
    waiting.cancel()
    gate.open()
    assert read(waiting) == []
    assert waiting.finish_reason == "cancelled"
    assert waiting.sampler.said == 0


def test_cancel_of_a_job_behind_another_waiting_one_is_answered_at_the_next_step(start):
    """It used to be answered only once the job before it had started."""
    gate = Gate()
    engine = start(FakeStepper(rows=1, before_decode=gate))
    (running,) = engine.submit([5], scripts([5], [1] * 50), 50)
    gate.wait_for_loop()
    engine.submit([6], scripts([6], [2]), 1)
    (last,) = engine.submit([7], scripts([7], [3]), 1)
    last.cancel()
    gate.let_one_through()
    gate.wait_for_loop()
    assert read(last) == []
    assert running.finish_reason is None
    gate.open()
    assert len(read(running)) == 50


def test_the_other_sequences_of_a_job_go_on_without_a_cancelled_one(start):
    gate = Gate()
    stepper = FakeStepper(rows=2, before_decode=gate)
    engine = start(stepper)
    engine.submit([5], scripts([5], [1, 1, STOP]), 3)
    gate.wait_for_loop()
    left, stays = engine.submit([6], scripts([6], [2, STOP], [3, 3, STOP]), 3)
    left.cancel()
    gate.open()
    assert read(left) == []
    assert read(stays) == [3, 3, STOP]


def test_cancel_in_prefill_stops_the_micro_batch_under_way(start):
    """It used to be computed to its end: half a second for 256 tokens on a slow machine."""
    gate = Gate()
    stepper = FakeStepper(before_prefill=gate)
    engine = start(stepper)
    prompt = [5] * 40
    (stream,) = engine.submit(prompt, scripts(prompt, [1]), 1)
    gate.wait_for_loop()
    gate.let_one_through()
    gate.wait_for_loop()
    stream.cancel()
    gate.open()
    assert read(stream) == []
    assert stream.finish_reason == "cancelled"
    (again,) = engine.submit(prompt, scripts(prompt, [1]), 1)
    assert read(again) == [1]
    starts = [call[3] for call in stepper.named("prefill")]
    assert starts[:3] == [0, 8, 8], "the second one was stopped, what the first computed is kept"


@pytest.mark.parametrize("place", ["before_prefill", "before_decode"])
def test_a_cancelled_stream_ends_for_its_reader_while_the_engine_is_busy(start, place):
    """Its reader used to wait for the step under way, be it its own or that of others."""
    gate = Gate()
    stepper = FakeStepper()
    setattr(stepper, place, gate)
    engine = start(stepper)
    (running,) = engine.submit([5, 5], scripts([5, 5], [1] * 9), 9)
    gate.wait_for_loop()
    (waiting,) = engine.submit([6], scripts([6], [2]), 1)
    for stream in (waiting, running):
        stream.cancel()
        read(stream)
        assert stream.finish_reason == "cancelled"
    gate.open()


def test_a_step_that_others_share_is_not_stopped(start):
    gate = Gate()
    stepper = FakeStepper(before_decode=gate)
    leaving, staying = start(stepper).submit([5], scripts([5], [1] * 5, [2] * 5), 5)
    gate.wait_for_loop()
    leaving.cancel()
    gate.open()
    assert read(staying) == [2] * 5
    assert [len(call[1]) for call in stepper.named("decode")] == [2, 1, 1, 1], "none was repeated"


@pytest.mark.parametrize("can_trim", [True, False])
def test_a_step_that_nobody_wants_is_stopped_and_leaves_no_trace(start, can_trim):
    """The stepper checks that the next prompt finds the rows as they were."""
    gate = Gate()
    stepper = FakeStepper(before_decode=gate, can_trim=can_trim)
    engine = start(stepper)
    streams = engine.submit([5, 5, 5], scripts([5, 5, 5], [1] * 5, [2] * 5), 5)
    gate.wait_for_loop()
    for stream in streams:
        stream.cancel()
    gate.open()
    (again,) = engine.submit([5, 5, 5, 7], scripts([5, 5, 5, 7], [3, STOP]), 5)
    assert read(again) == [3, STOP]
    assert [call[2] for call in stepper.named("decode")] == [(1, 2), (3,)]


def test_close_stops_a_prompt_under_way(start):
    gate = Gate()
    stepper = FakeStepper(before_prefill=gate)
    engine = start(stepper)
    (stream,) = engine.submit([5] * 40, scripts([5] * 40, [1]), 1)
    join = read_aside(stream)
    gate.wait_for_loop()
    closer = threading.Thread(target=engine.close, daemon=True)
    closer.start()
    while not stepper._interrupted.is_set():
        time.sleep(0.001)
    gate.open()
    assert isinstance(join()[0], CancelledError)
    assert len(stepper.named("prefill")) == 1


def test_a_stream_cancelled_after_its_end_stops_nobody_else(start):
    """Readers cancel what they have read, as the next request of another thread is computed."""
    gate = Gate()
    stepper = FakeStepper(before_prefill=gate)
    engine = start(stepper)
    (ended,) = engine.submit([5], scripts([5], [STOP]), 1)
    gate.let_one_through()
    assert read(ended) == [STOP]
    (running,) = engine.submit([6] * 20, scripts([6] * 20, [1]), 1)
    gate.wait_for_loop()
    gate.wait_for_loop()
    ended.cancel()
    gate.open()
    assert read(running) == [1]
    assert [call[3] for call in stepper.named("prefill")] == [0, 0, 8, 16]


def test_cancel_while_decoding_leaves_after_the_step(start):
    gate = Gate()
    engine = start(FakeStepper(before_decode=gate))
    (stream,) = engine.submit([5], scripts([5], [1] * 50), 50)
    gate.wait_for_loop()
    stream.cancel()
    gate.open()
    assert len(read(stream)) <= 2
    assert stream.finish_reason == "cancelled"


def test_cancel_after_the_end_changes_nothing(start):
    (stream,) = start(FakeStepper()).submit([5], scripts([5], [STOP]), 5)
    read(stream)
    stream.cancel()
    assert stream.finish_reason == "stop"
    assert read(stream) == []


def test_close_wakes_readers_with_cancelled_error(start):
    gate = Gate()
    stepper = FakeStepper(rows=1, before_decode=gate)
    engine = start(stepper)
    (running,) = engine.submit([5], scripts([5], [1] * 50), 50)
    (waiting,) = engine.submit([6], scripts([6], [1]), 1)
    join = read_aside(running, waiting)
    gate.wait_for_loop()
    closer = threading.Thread(target=engine.close, daemon=True)
    closer.start()
    gate.open()
    assert all(isinstance(result, CancelledError) for result in join())
    closer.join(PATIENCE)
    assert stepper.closed
    engine.close()


def test_submit_after_close_is_refused(start):
    engine = start(FakeStepper())
    engine.close()
    with pytest.raises(DeviceError, match="The fake is closed"):
        engine.submit([5], scripts([5], [1]), 1)


@pytest.mark.parametrize("place", ["before_prefill", "before_decode"])
@pytest.mark.parametrize("raised", [DeviceError("It broke.", "Mend it."), ValueError("odd")])
def test_a_failure_of_the_engine_reaches_every_reader(start, place, raised):
    """Anything but an AlignProError used to look like a closed model, with a traceback."""
    gate = Gate()

    def fail():
        gate()
        raise raised

    stepper = FakeStepper(rows=2)
    setattr(stepper, place, fail)
    engine = start(stepper)
    samplers = scripts([5, 5], [1, 1], [1, 1]) + scripts([6, 6], [2, 2])
    streams = engine.submit([5, 5], samplers[:2], 2)
    gate.wait_for_loop()
    streams += engine.submit([6, 6], samplers[2:], 2)
    join = read_aside(*streams)
    gate.open()
    assert [type(result) for result in join()] == [DeviceError] * 3
    assert [sampler.released for sampler in samplers] == [1, 1, 1]
    while not stepper.closed:
        time.sleep(0.01)
    with pytest.raises(DeviceError):
        engine.submit([5], scripts([5], [1]), 1)


def test_a_finished_prompt_is_reused_but_for_its_last_two_tokens(start):
    stepper = FakeStepper(micro_batch=50)
    engine = start(stepper)
    prompt = list(range(10, 30))
    (first,) = engine.submit(prompt, scripts(prompt, [1, STOP]), 5)
    read(first)
    (same,) = engine.submit(prompt, scripts(prompt, [2, STOP]), 5)
    read(same)
    longer = [*prompt, 1, 40, 41]
    (turn,) = engine.submit(longer, scripts(longer, [3, STOP]), 5)
    read(turn)
    assert [call[3] for call in stepper.named("prefill")] == [0, 18, 20]


def test_an_engine_that_cannot_trim_computes_the_prompt_anew(start):
    stepper = FakeStepper(can_trim=False, micro_batch=50)
    engine = start(stepper)
    for _ in range(2):
        (stream,) = engine.submit([5, 6, 7], scripts([5, 6, 7], [1, STOP]), 5)
        assert read(stream) == [1, STOP]
    assert [call[3] for call in stepper.named("prefill")] == [0, 0]


def test_the_prompt_unused_for_longest_makes_room(start):
    stepper = FakeStepper(rows=3, capacity=40, micro_batch=50)
    engine = start(stepper)

    def ask(first: int, length: int) -> int:
        prompt = [first] * length
        (stream,) = engine.submit(prompt, scripts(prompt, [1]), 1)
        read(stream)
        return stepper.named("prefill")[-1][3]

    assert ask(5, 10) == 0
    assert ask(6, 10) == 0
    assert ask(7, 10) == 0
    assert ask(5, 10) == 8, "still cached, and now the newest"
    assert ask(8, 15) == 0, "room is made of the 6s"
    assert ask(5, 10) == 8
    assert ask(6, 10) == 0


def test_a_job_waits_for_cells_and_is_not_lost(start):
    gate = Gate()
    stepper = FakeStepper(rows=4, capacity=20, before_decode=gate)
    engine = start(stepper)
    (first,) = engine.submit([5] * 4, scripts([5] * 4, [1] * 10), 10)
    gate.wait_for_loop()
    (second,) = engine.submit([6] * 4, scripts([6] * 4, [2] * 10), 10)
    gate.open()
    assert read(second) == [2] * 10
    assert read(first) == [1] * 10
    assert all(len(call[1]) == 1 for call in stepper.named("decode")), "never together"


@pytest.mark.parametrize(
    ("count", "prompt", "max_tokens", "words"),
    [
        (5, 1, 1, ["5 sequences", "loaded for 4"]),
        (1, 95, 6, ["holds 100 tokens", "prompt of 95", "6 new", "101 in all"]),
        (4, 20, 21, ["prompt of 20", "4 x 21", "104 in all"]),
    ],
)
def test_an_overflow_is_refused_with_its_numbers(start, count, prompt, max_tokens, words):
    stepper = FakeStepper()
    with pytest.raises(ContextOverflowError) as caught:
        start(stepper).submit([5] * prompt, scripts([5], *[[1]] * count), max_tokens)
    assert all(word in caught.value.problem for word in words)
    assert not stepper.calls


def test_a_job_that_fills_the_context_exactly_runs(start):
    stepper = FakeStepper(rows=2, capacity=30, row_capacity=20)
    streams = start(stepper).submit([5] * 10, scripts([5] * 10, [1] * 10, [2] * 10), 10)
    assert [read(stream) for stream in streams] == [[1] * 10, [2] * 10]


@given(st.integers(0, 60), st.integers(0, 60), st.integers(3, 20))
def test_chunks_cover_the_prompt_and_never_end_with_one_token(start_at, length, size):
    """A single row uses another kernel than two rows: the same seed gave different answers."""
    end = start_at + length
    chunks, begin = [], start_at
    while begin < end:
        chunks.append((begin, chunk_end(begin, end, size)))
        begin = chunks[-1][1]
    covered = [place for begin, stop in chunks for place in range(begin, stop)]
    assert covered == list(range(start_at, end))
    assert all(stop - begin <= size for begin, stop in chunks)
    if length >= 2:
        assert chunks[-1][1] - chunks[-1][0] >= 2


@dataclass(frozen=True)
class Plan:
    """A job of the stress test; `cancel_after` counts tokens read, None never cancels."""

    prompt: tuple[int, ...]
    sentences: tuple[tuple[int, ...], ...]
    max_tokens: int
    cancel_after: int | None


@st.composite
def plans(draw):
    max_tokens = draw(st.integers(1, 6))
    sentence = st.lists(st.integers(0, 15), min_size=max_tokens, max_size=max_tokens).map(tuple)
    return Plan(
        # Few different tokens, so that prompts share beginnings.
        prompt=tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=12))),
        sentences=tuple(draw(st.lists(sentence, min_size=1, max_size=3))),
        max_tokens=max_tokens,
        cancel_after=draw(st.none() | st.integers(0, 4)),
    )


def until_stop(tokens):
    return tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens


@settings(max_examples=150, deadline=None)
@given(
    st.lists(plans(), min_size=1, max_size=10),
    st.integers(3, 5),
    st.integers(30, 60),
    st.booleans(),
    st.integers(3, 9),
)
def test_any_schedule_gives_every_caller_its_own_tokens(
    schedule, rows, capacity, can_trim, micro_batch
):
    """The stepper checks rows against prompts and cells against the capacity at each call."""
    stepper = FakeStepper(
        rows=rows, row_capacity=20, capacity=capacity, can_trim=can_trim, micro_batch=micro_batch
    )
    engine = Engine(stepper, "fake", "Ask for less.")
    jobs = [scripts(plan.prompt, *plan.sentences) for plan in schedule]
    heard: list[list[tuple[list[int], str | None]]] = [[] for _ in schedule]

    def follow(place: int) -> None:
        plan = schedule[place]
        streams = engine.submit(plan.prompt, jobs[place], plan.max_tokens)
        if plan.cancel_after == 0:
            streams[0].cancel()
        for stream in streams:
            tokens = []
            for draw in stream:
                tokens.append(draw.token)
                if len(tokens) == plan.cancel_after:
                    stream.cancel()
            heard[place].append((tokens, stream.finish_reason))

    threads = [
        threading.Thread(target=follow, args=(i,), daemon=True) for i in range(len(schedule))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a reader hangs"
    engine.close()
    for plan, streams in zip(schedule, heard, strict=True):
        assert len(streams) == len(plan.sentences)
        for sentence, (tokens, reason) in zip(plan.sentences, streams, strict=True):
            whole = list(until_stop(sentence))
            if reason == "cancelled":
                assert plan.cancel_after is not None
                assert tokens == whole[: len(tokens)]
            else:
                assert tokens == whole
                assert reason == ("stop" if STOP in whole else "length")
    assert all(sampler.released == 1 for job in jobs for sampler in job)
    assert stepper.closed


@dataclass
class NumberlessStepper(FakeStepper):
    """Draws NaN for the tokens given as -1."""

    def draw(self, output, sampler):
        drawn = super().draw(output, sampler)
        return Draw(0, math.nan) if drawn.token < 0 else drawn


@pytest.mark.parametrize("tokens", [[-1], [1, -1], [1, 1, -1, 1]])
def test_a_score_that_is_no_number_ends_its_sequence_alone(start, tokens):
    """A model with NaN among its weights answered `<<<<`."""
    engine = start(NumberlessStepper(capacity=200))
    samplers = scripts([5, 6], tokens, [2, 2, 2, 2, STOP])
    bad, good = engine.submit([5, 6], samplers, 10)
    join = read_aside(bad, good)
    error, drawn = join()
    assert isinstance(error, ModelFileError)
    assert "not numbers" in error.problem
    assert drawn == [2, 2, 2, 2, STOP]
    assert [sampler.released for sampler in samplers] == [1, 1]


def test_what_led_to_no_number_is_computed_anew(start):
    stepper = NumberlessStepper(micro_batch=50)
    engine = start(stepper)
    prompt = list(range(10, 20))
    (bad,) = engine.submit(prompt, scripts(prompt, [-1]), 5)
    assert isinstance(read_aside(bad)()[0], ModelFileError)
    (good,) = engine.submit(prompt, scripts(prompt, [1, STOP]), 5)
    assert read(good) == [1, STOP]
    assert [call[3] for call in stepper.named("prefill")] == [0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("what", ["submit", "read", "read a running one", "close"])
def test_a_forked_process_gets_an_error_instead_of_waiting_for_ever(start, what):
    """A fork has none of its parent's threads, so nobody would ever answer."""
    gate = Gate()
    engine = start(FakeStepper(before_decode=gate))
    (stream,) = engine.submit([5], scripts([5], [1] * 20), 20)
    gate.wait_for_loop()
    drawn = iter(stream)
    if what == "read a running one":
        next(drawn)
    actions = {
        "submit": lambda: engine.submit([5], scripts([5], [STOP]), 1),
        "read": lambda: list(drawn),
        "read a running one": lambda: list(drawn),
        "close": engine.close,
    }
    forked = os.fork()
    if not forked:
        signal.alarm(20)  # ends the process if it hangs
        try:
            actions[what]()
        except DeviceError as error:
            os._exit(10 if "forked" in str(error) else 20)
        os._exit(30)
    status = os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1])
    assert status == (30 if what == "close" else 10)
    gate.open()
    assert read(stream)
