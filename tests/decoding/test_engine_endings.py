"""Sequences that end before their time: cancelled, closed, failed, forked, without numbers."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from dataclasses import dataclass

import pytest

from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.errors import CancelledError, DeviceError, ModelFileError
from tests.support.scripted_stepper import (
    PATIENCE,
    STOP,
    FakeStepper,
    Gate,
    read,
    read_aside,
    scripts,
)


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
