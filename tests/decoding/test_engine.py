"""The batched loop under a scripted stepper that checks every call it gets."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.decoding.engine import Engine, Submission
from alignpro_lite.decoding.rows import chunk_end
from alignpro_lite.errors import ContextOverflowError
from tests.support.scripted_stepper import PATIENCE, STOP, FakeStepper, Gate, read, scripts


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


def test_a_prompt_that_is_asked_again_takes_the_row_of_its_last_answer(start):
    """Regression: each answer stayed cached in a row of its own, and every step got slower."""
    stepper = FakeStepper()
    engine = start(stepper)
    for answer in ([1, 2, 3, 4, STOP], [4, 3, STOP], [2, 2, 2, 2, STOP]):
        (stream,) = engine.submit([5, 6, 7], scripts([5, 6, 7], answer), 10)
        assert read(stream) == answer
    assert {row for call in stepper.named("decode") for row in call[1]} == {0}


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
