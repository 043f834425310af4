"""The model in asyncio: the same events, cancellation by task, and no thread that is left."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from alignpro_lite import (
    AlignedModel,
    AsyncAlignedModel,
    CancelledError,
    DeviceRequest,
    Done,
    Penalties,
    Progress,
    Request,
    Rewritten,
    Sampling,
    Text,
)
from alignpro_lite.asynchronous import MOST_WAITING
from alignpro_lite.errors import DeviceError, InputError
from alignpro_lite.rewriting.draw import CHOSEN_BY_USER
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.scripted_stepper import PATIENCE, Gate

PROMPT = "How do I stay safe online?"
SHORT = Request(max_tokens=6, sampling=Sampling(seed=3))
NEVER_STOPS = Penalties(bias=((0, -100.0), (2, -100.0)))
"""The tiny target's stop tokens: an answer that ended by itself could no longer be cancelled."""
LONG = Request(max_tokens=1500, rewrite="off", penalties=NEVER_STOPS)


async def load(**options: Any) -> AsyncAlignedModel:
    return await AsyncAlignedModel.load(
        TINY_TARGET, TINY_BUNDLE, devices=DeviceRequest("cpu"), **options
    )


def in_asyncio(body):
    """Run a coroutine function with the tiny models; no thread may be left afterwards."""

    async def run():
        async with await load() as model:
            await asyncio.wait_for(body(model), 3 * PATIENCE)

    before = set(threading.enumerate())
    asyncio.run(run())
    assert set(threading.enumerate()) <= before


def running_sequences(model: Any) -> int:
    return len(model.model.target.engine._live)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_gets_an_error():
    """Regression: the threads of the pool are not in a fork, which waited for them for ever."""

    async def body(model):
        await model.run(PROMPT, SHORT)
        forked = os.fork()
        if not forked:
            signal.alarm(30)  # ends the process if it hangs
            code = 20
            try:
                model.stream(PROMPT, SHORT).result().send(None)
            except DeviceError as error:
                code = 10 if "forked" in str(error) else 21
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 10
        assert (await model.run(PROMPT, SHORT)).finish_reason != "cancelled"

    in_asyncio(body)


def test_the_events_are_those_of_the_model(tiny_model):
    async def body(model):
        expected = list(tiny_model.stream(PROMPT, SHORT).events())
        events = [event async for event in model.stream(PROMPT, SHORT).events()]
        assert [type(event) for event in events] == [type(event) for event in expected]
        assert isinstance(events[-1], Done)
        assert events[-1].result.answer == expected[-1].result.answer

    in_asyncio(body)


def test_text_result_run_and_rewrite(tiny_model):
    async def body(model):
        result = await model.run(PROMPT, SHORT)
        assert result.answer == tiny_model.run(PROMPT, SHORT).answer
        assert "".join([piece async for piece in model.stream(PROMPT, SHORT)]) == result.answer
        assert await model.rewrite(PROMPT, 2, SHORT) == tiny_model.rewrite(PROMPT, 2, SHORT)

    in_asyncio(body)


def test_an_iteration_goes_on_where_it_was_left():
    async def body(model):
        stream = model.stream(PROMPT, SHORT)
        async for event in stream.events():
            if isinstance(event, Rewritten):
                break
        await asyncio.sleep(0)  # what was left is finalised
        assert (await stream.use("Say hello.")).reason == CHOSEN_BY_USER
        result = await stream.result()
        assert result.choice.sent == "Say hello."
        assert result.finish_reason != "cancelled"

    in_asyncio(body)


def test_the_answer_waits_while_the_user_edits_the_rewrite():
    """Nothing runs ahead of the reader: `use` is in time however long it takes."""

    async def body(model):
        stream = model.stream(PROMPT, SHORT)
        told = []
        async for event in stream.events():
            told.append(event)
            if isinstance(event, Rewritten) and len(told) < 4:
                await asyncio.sleep(0.05)
                await stream.use("Say hello.")
        assert told[-1].result.choice.sent == "Say hello."

    in_asyncio(body)


def test_a_task_that_is_cancelled_stops_the_decoding():
    async def body(model):
        begun = asyncio.Event()
        stream = model.stream(PROMPT, LONG)

        async def read():
            async for _ in stream:
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        result = await stream.result()
        assert result.finish_reason == "cancelled"
        assert result.answer_tokens < LONG.max_tokens
        while running_sequences(model):  # the step under way
            await asyncio.sleep(0.01)
        assert (await model.run(PROMPT, SHORT)).finish_reason != "cancelled"

    in_asyncio(body)


@pytest.mark.parametrize("what", ["prepare", "rewrite", "run"])
def test_a_task_that_is_cancelled_stops_the_rewriting(what):
    """The prompter is held at its first step until the task has been cancelled."""

    async def body(model):
        stepper = model.model.prompter._engine._stepper
        gate, prefill = Gate(), stepper.prefill

        def held(*arguments):
            gate()
            prefill(*arguments)

        stepper.prefill = held
        calls = {
            "prepare": lambda: model.stream(PROMPT, SHORT).prepare(),
            "rewrite": lambda: model.rewrite(PROMPT, 1, SHORT),
            "run": lambda: model.run(PROMPT, SHORT),
        }
        task = asyncio.create_task(calls[what]())
        await asyncio.to_thread(gate.wait_for_loop)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task  # while the engine is still held
        gate.open()
        stepper.prefill = prefill

    in_asyncio(body)


def test_a_load_whose_task_is_cancelled_leaves_nothing():
    async def cancelled():
        task: Any = None

        def listen(progress: Progress) -> None:
            task.cancel()

        task = asyncio.create_task(load(on_progress=listen))
        with pytest.raises(asyncio.CancelledError):
            await task
        for thread in threading.enumerate():
            if thread.name == "loading":
                await asyncio.to_thread(thread.join, PATIENCE)

    before = set(threading.enumerate())
    asyncio.run(cancelled())
    assert set(threading.enumerate()) <= before


def test_models_that_are_ready_when_their_task_is_cancelled_are_closed(monkeypatch):
    """They stayed loaded, and an engine process alive, with nobody to close them."""
    begun, go_on, closed = (threading.Event() for _ in range(3))

    def load_at_last(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go_on.wait(PATIENCE)
        return SimpleNamespace(close=closed.set)

    async def run():
        task = asyncio.create_task(load())
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr(AlignedModel, "load", load_at_last)
    asyncio.run(run())
    assert closed.is_set()


def test_progress_is_told_in_the_event_loop():
    async def body():
        told = []
        async with await load(on_progress=lambda step: told.append(threading.get_ident())):
            assert set(told) == {threading.get_ident()}

    asyncio.run(body())


def test_a_load_that_fails_raises_its_error_and_leaves_no_thread():
    async def body():
        with pytest.raises(InputError, match="found nothing there"):
            await load(reward="judge:")

    before = set(threading.enumerate())
    asyncio.run(body())
    assert set(threading.enumerate()) <= before


def test_many_streams_at_once_each_get_their_own_answer(tiny_model):
    prompts = [f"What is {number} + 1?" for number in range(20)]
    plain = Request(max_tokens=4, rewrite="off", sampling=Sampling(temperature=0))

    async def body(model):
        results = await asyncio.gather(*(model.run(prompt, plain) for prompt in prompts))
        assert [result.choice.prompt for result in results] == prompts
        assert all(result.finish_reason in ("stop", "length") for result in results)

    in_asyncio(body)


def test_a_slow_reader_holds_nobody_back():
    async def body(model):
        slow = model.stream(PROMPT, LONG)
        async for event in slow.events():
            if isinstance(event, Text):
                break
        other = await model.run(PROMPT, SHORT)
        assert other.finish_reason != "cancelled"
        slow.cancel()
        assert (await slow.result()).finish_reason == "cancelled"

    in_asyncio(body)


def test_closing_ends_whoever_reads_with_a_typed_error():
    async def run():
        model = await load()
        begun = asyncio.Event()

        async def read():
            async for _ in model.stream(PROMPT, LONG):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        await model.close()
        await model.close()
        with pytest.raises((CancelledError, DeviceError)):
            await task
        with pytest.raises(DeviceError, match="closed"):
            await model.run(PROMPT, SHORT)

    before = set(threading.enumerate())
    asyncio.run(run())
    assert set(threading.enumerate()) <= before


class Standing:
    """A model whose streams take until they are cancelled or it is closed, to open already."""

    def __init__(self):
        self.opened = 0
        self.is_over = threading.Event()

    def stream(self, prompt, request):
        self.opened += 1
        if not self.is_over.wait(PATIENCE):
            raise AssertionError("nothing ended it")
        raise CancelledError

    def close(self):
        self.is_over.set()


def standing_model() -> tuple[Standing, AsyncAlignedModel]:
    standing: Any = Standing()
    return standing, AsyncAlignedModel(standing)


def test_the_event_loop_goes_on_while_a_stream_opens():
    """A constraint that is checked for seconds, or a fresh process after a crash, stood in it."""

    async def run():
        standing, model = standing_model()
        task = asyncio.create_task(model.run(PROMPT, SHORT))
        while not standing.opened:
            await asyncio.sleep(0.001)
        await model.close()
        with pytest.raises(CancelledError):
            await task

    asyncio.run(run())


def test_tasks_that_wait_for_a_thread_end_when_they_are_cancelled():
    """Also behind as many as there are threads, which once had to end first."""

    async def run():
        standing, model = standing_model()
        reading = [asyncio.create_task(model.run(PROMPT, SHORT)) for _ in range(MOST_WAITING)]
        while standing.opened < MOST_WAITING:
            await asyncio.sleep(0.001)
        behind = asyncio.create_task(model.run(PROMPT, SHORT))
        await asyncio.sleep(0.01)
        behind.cancel()
        with pytest.raises(asyncio.CancelledError):
            await behind
        assert not standing.is_over.is_set()
        await model.close()  # needs none of the threads either
        ended = await asyncio.gather(*reading, return_exceptions=True)
        assert {type(error) for error in ended} == {CancelledError}
        assert standing.opened == MOST_WAITING

    before = set(threading.enumerate())
    asyncio.run(run())
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("prompt", ["", "   "])
def test_what_is_wrong_with_a_request_is_raised_where_it_is_awaited(prompt):
    async def body(model):
        stream = model.stream(prompt, SHORT)
        with pytest.raises(InputError, match="needs text"):
            await stream.prepare()
        with pytest.raises(InputError, match="needs text"):
            await stream.result()

    in_asyncio(body)


def test_a_model_that_is_loaded_already_can_be_taken_over():
    async def run():
        loaded = AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=DeviceRequest("cpu"))
        async with AsyncAlignedModel(loaded) as model:
            assert (await model.run(PROMPT, SHORT)).finish_reason != "cancelled"

    asyncio.run(run())


def test_what_is_raised_where_progress_is_told_ends_the_loading():
    """It went to the loop's handler, and the loading went on."""

    def refuse(progress: Progress) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        asyncio.run(load(on_progress=refuse))


def test_the_event_loop_goes_on_while_a_cancelled_loading_ends(monkeypatch):
    """A task that was cancelled twice stopped the loop until the models were loaded."""
    gate, closed = threading.Event(), []

    def slow(*names: object, **options: object) -> SimpleNamespace:
        gate.wait(PATIENCE)
        return SimpleNamespace(close=lambda: closed.append(True))

    async def body() -> None:
        monkeypatch.setattr(AlignedModel, "load", slow)
        task = asyncio.create_task(AsyncAlignedModel.load())
        for _ in range(2):
            await asyncio.sleep(0.05)
            task.cancel()
        await asyncio.sleep(0.05)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, PATIENCE)

    asyncio.run(body())
    assert closed == [True]
