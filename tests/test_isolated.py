"""Engines in a process of their own: the same answers, and faults that the app survives."""

from __future__ import annotations

import asyncio
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import chdir
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from alignpro_lite import (
    AlignedModel,
    AsyncAlignedModel,
    Cancellation,
    CancelledError,
    DeviceRequest,
    Message,
    Penalties,
    Progress,
    Request,
    Rewriting,
    Rewritten,
    RhoStar,
    Sampling,
    Text,
)
from alignpro_lite.errors import DeviceError, InputError, RegistryError
from alignpro_lite.rewriting.draw import CHOSEN_BY_USER
from alignpro_lite.wire import Frame, PromptOrder, unpack_reply
from tests.support import ROOT, TINY_BUNDLE, TINY_TARGET
from tests.support.scripted_stepper import PATIENCE

PROMPT = "How do I stay safe online?"
CHEAP = RhoStar(strength=1.0, answers=1, guard_answers=2, trial_tokens=2)
SHORT = Request(max_tokens=6, sampling=Sampling(seed=3), rho_star=CHEAP)
NEVER_STOPS = Penalties(bias=((0, -100.0), (2, -100.0)))
"""The tiny target's stop tokens: an answer that ended by itself could no longer be cancelled."""
LONG = Request(max_tokens=1500, rewrite="off", penalties=NEVER_STOPS)
RHO_STAR = Request(
    max_tokens=8,
    rewrite_sampling=Sampling(temperature=2.5),
    rho_star=RhoStar(samples=3, strength=1.0, trial_tokens=4),
    history=(Message("user", "Hello"), Message("assistant", "Hi", "a thought")),
)
REWARD = "tests.support.reward_functions:length"


def load(**options: Any) -> Any:
    with chdir(TINY_BUNDLE):  # the process imports nothing from the current folder
        return AlignedModel.load(
            TINY_TARGET, TINY_BUNDLE, REWARD, devices=DeviceRequest("cpu"), isolated=True, **options
        )


@pytest.fixture(scope="module")
def model():
    with load() as loaded:
        yield loaded


@pytest.fixture(scope="module")
def ours():
    """The same models in this process."""
    with AlignedModel.load(
        TINY_TARGET, TINY_BUNDLE, REWARD, devices=DeviceRequest("cpu")
    ) as loaded:
        yield loaded


def pid_of(model: Any) -> int:
    return model._engine._process.pid


def without_times(events: list[Any]) -> str:
    """Events as text, because NaN equals nothing."""
    return re.sub(r"(seconds|rewrite|first_token|total)=[\d.e-]+", r"\1", repr(events))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("request_", [SHORT, RHO_STAR], ids=["short", "rho-star"])
def test_events_and_results_are_those_of_the_models_in_this_process(model, ours, request_):
    expected = list(ours.stream(PROMPT, request_).events())
    events = list(model.stream(PROMPT, request_).events())
    assert without_times(events) == without_times(expected)


def test_rewrites_and_text_are_the_same(model, ours):
    assert model.rewrite(PROMPT, 2, SHORT) == ours.rewrite(PROMPT, 2, SHORT)
    assert "".join(model.stream(PROMPT, SHORT)) == ours.run(PROMPT, SHORT).answer


def test_errors_keep_their_type_their_problem_and_their_cure(model, ours):
    for wrong in (" ", "\ud800"):
        with pytest.raises(InputError) as theirs:
            model.stream(wrong)
        with pytest.raises(InputError) as known:
            ours.stream(wrong)
        assert theirs.value.cure
        assert known.value.cure
    with pytest.raises(RegistryError, match="neither a file here"):
        AlignedModel.load("missing.gguf", None, isolated=True)


def test_the_user_edits_the_rewrite(model):
    stream = model.stream(PROMPT, SHORT)
    assert stream.prepare() == stream.choice
    assert stream.use("Say hello.").reason == CHOSEN_BY_USER
    with pytest.raises(InputError):
        stream.use(" ")
    told = list(stream.events())
    assert [event.choice.sent for event in told if isinstance(event, Rewritten)][-1] == "Say hello."
    assert stream.result().choice.sent == "Say hello."
    with pytest.raises(InputError, match="answer has begun"):
        stream.use("Say it again.")


def test_the_answer_waits_until_its_first_event_is_asked_for(model):
    """What runs ahead could not be replaced any more."""
    stream = model.stream(PROMPT, SHORT)
    assert isinstance(next(stream.events()), Rewriting)
    assert stream.use("Say hello.").sent == "Say hello."
    assert stream.result().choice.sent == "Say hello."


def test_cancelling_from_another_thread_ends_the_answer(model):
    stream = model.stream(PROMPT, LONG)
    pieces = iter(stream)
    next(pieces)
    canceller = threading.Thread(target=stream.cancel)
    canceller.start()
    canceller.join()
    result = stream.result()
    assert result.finish_reason == "cancelled"
    assert result.answer_tokens < LONG.max_tokens


def test_a_stream_that_is_cancelled_first_answers_nothing(model):
    stream = model.stream(PROMPT, LONG)
    stream.cancel()
    assert stream.result().finish_reason == "cancelled"


@pytest.mark.parametrize("is_prepared", [False, True])
def test_a_prompt_is_chosen_for_a_stream_that_is_cancelled(model, ours, is_prepared):
    """What came first was taken for the answer: `use` returned the end of the stream."""
    for each in (model, ours):
        stream = each.stream(PROMPT, SHORT)
        if is_prepared:
            stream.prepare()
        stream.cancel()
        assert stream.use("Something else.").reason == CHOSEN_BY_USER
        result = stream.result()
        assert result.finish_reason == "cancelled"
        assert result.choice.sent == "Something else."


def test_a_stream_that_is_dropped_while_it_is_held_leaves_no_thread(model):
    stream = model.stream(PROMPT, SHORT)
    stream.prepare()
    del stream
    threads = Path(f"/proc/{pid_of(model)}/task")
    if threads.exists():
        usual = len(list(threads.iterdir()))
        for _ in range(5):
            model.stream(PROMPT, SHORT).prepare()
        model.run(PROMPT, SHORT)
        deadline = time.monotonic() + PATIENCE
        while len(list(threads.iterdir())) > usual and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(threads.iterdir())) <= usual


def test_a_request_that_cannot_travel_is_refused_and_ends_no_process(model, monkeypatch):
    """It was an error of pickle, or the end of the process for all that it was doing."""

    class Words(str):
        pass

    pid = pid_of(model)
    running = model.stream(PROMPT, SHORT)
    with pytest.raises(InputError, match="cannot travel"):
        model.stream(Words(PROMPT))
    elsewhere = ModuleType("of_this_app_alone")
    Words.__module__, Words.__qualname__ = elsewhere.__name__, "Words"
    vars(elsewhere)["Words"] = Words
    monkeypatch.setitem(sys.modules, elsewhere.__name__, elsewhere)
    with pytest.raises(InputError, match="of_this_app_alone"):
        model.stream(Words(PROMPT))
    with pytest.raises(InputError, match="of_this_app_alone"):
        model.rewrite(Words(PROMPT))
    with pytest.raises(InputError, match="of_this_app_alone"):
        running.use(Words(PROMPT))
    assert running.result().finish_reason in ("stop", "length")
    assert pid_of(model) == pid


def test_several_threads_are_served_at_once(model):
    prompts = [f"What is {number} + 1?" for number in range(6)]
    found: dict[str, str] = {}

    def ask(prompt: str) -> None:
        found[prompt] = model.run(prompt, SHORT).choice.prompt

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert found == dict(zip(prompts, prompts, strict=True))


def test_loading_reports_progress_on_the_callers_thread():
    told: list[tuple[Progress, int]] = []
    load(on_progress=lambda step: told.append((step, threading.get_ident()))).close()
    assert {thread for _, thread in told} == {threading.get_ident()}
    last = told[-1][0]
    assert (last.stage, last.done) == ("loading", last.total)


def test_a_load_that_is_cancelled_ends_its_process():
    cancellation = Cancellation()

    def listen(progress: Progress) -> None:
        canceller = threading.Thread(target=cancellation.cancel)
        canceller.start()
        canceller.join()

    with pytest.raises(CancelledError):
        load(on_progress=listen, cancellation=cancellation)


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL], ids=lambda number: number.name)
def test_a_fault_is_an_error_and_the_next_call_works_in_a_fresh_process(number):
    with load() as model:
        first = pid_of(model)
        pieces = iter(model.stream(PROMPT, LONG))
        next(pieces)
        os.kill(first, number)
        with pytest.raises(DeviceError, match=number.name):
            list(pieces)
        assert model.run(PROMPT, SHORT).finish_reason != "cancelled"
        second = pid_of(model)
        assert second != first
    assert not is_alive(first)
    assert not is_alive(second)


def test_what_is_no_frame_is_a_fault_too(monkeypatch):
    """Nothing that a hostile model may make the process say runs in the app."""
    with load() as model:
        engine = model._engine
        monkeypatch.setattr("alignpro_lite.isolated.unpack_reply", refuse)
        call = engine.call("stream", PromptOrder(PROMPT, SHORT))
        with pytest.raises(DeviceError, match="ended with"):
            call.get()
        monkeypatch.undo()
        assert model.run(PROMPT, SHORT).finish_reason != "cancelled"


def refuse(raw: bytes) -> Frame:
    raise ValueError("not a frame")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        pickle.dumps((1, "Text", Text("x"))),
        msgspec.msgpack.encode((1, "load", None)),
        msgspec.msgpack.encode((1, "Text", {"text": 5})),
        msgspec.msgpack.encode((1, "Text", None)),
        msgspec.msgpack.encode((1, "Text")),
        msgspec.msgpack.encode(["Text"]),
    ],
    ids=ascii,
)
def test_a_reply_is_one_of_the_known_types_or_refused(raw):
    with pytest.raises(ValueError, match="not a frame"):
        unpack_reply(raw)


def test_close_ends_an_iteration_with_a_typed_error_and_the_process():
    model = load()
    pid = pid_of(model)
    pieces = iter(model.stream(PROMPT, LONG))
    next(pieces)
    model.close()
    with pytest.raises(CancelledError):
        list(pieces)
    with pytest.raises(DeviceError, match="closed"):
        model.run(PROMPT)
    model.close()
    assert not is_alive(pid)


APP = """
import os, sys, time
from pathlib import Path
from alignpro_lite import AlignedModel, DeviceRequest, Request
model = AlignedModel.load(*map(Path, sys.argv[1:3]), devices=DeviceRequest("cpu"), isolated=True)
pieces = iter(model.stream("Tell me a story.", Request(max_tokens=1500, rewrite="off")))
next(pieces)
print(model._engine._process.pid, flush=True)
if sys.argv[3] == "fork":
    os.fork() or time.sleep(60)
if sys.argv[3] == "waits":
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("how", ["killed", "killed with a fork left", "ended"])
def test_the_process_ends_with_the_app(how):
    what = {"killed": "waits", "killed with a fork left": "fork", "ended": "ends"}[how]
    app = subprocess.Popen(
        [sys.executable, "-c", APP, str(TINY_TARGET), str(TINY_BUNDLE), what],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    group = app.pid
    pid = int(app.stdout.readline())
    if what == "waits":
        app.kill()
    elif what == "fork":
        time.sleep(0.2)
        os.kill(app.pid, signal.SIGKILL)
    app.wait(PATIENCE)
    until = time.monotonic() + PATIENCE
    while is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not is_alive(pid)
    if what == "fork":
        os.killpg(group, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_gets_an_error_and_the_app_goes_on(model):
    forked = os.fork()
    if not forked:
        signal.alarm(20)
        code = 30
        try:
            model.run(PROMPT, SHORT)
        except DeviceError as error:
            code = 10 if "forked" in str(error) else 20
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(forked, 0)[1]) == 10
    assert model.run(PROMPT, SHORT).finish_reason != "cancelled"


def test_asyncio_with_an_isolated_model(ours):
    async def body():
        async with await AsyncAlignedModel.load(
            TINY_TARGET, TINY_BUNDLE, devices=DeviceRequest("cpu"), isolated=True
        ) as model:
            events = [event async for event in model.stream(PROMPT, SHORT).events()]
            assert any(isinstance(event, Text) for event in events)
            task = asyncio.create_task(model.run(PROMPT, LONG))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await model.run(PROMPT, SHORT)).finish_reason != "cancelled"

    asyncio.run(body())
