"""`IsolatedModel`: the engines in a process of their own, so that a native fault ends no app.

    app: IsolatedModel --frames--> engine process: AlignedModel
         events, rewrites <--frames--

After a fault, whoever waits gets a DeviceError, and the next call starts a fresh process.
"""

from __future__ import annotations

import itertools
import os
import queue
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from alignpro_lite.decoding.cancellation import WAKE_SECONDS, Cancellation, Stop
from alignpro_lite.decoding.child import (
    NO_WINDOW,
    child_environment,
    how_it_ended,
    isolated_command,
    leave_to_parent,
)
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.decoding.engine import HomeProcess
from alignpro_lite.errors import AlignProError, CancelledError, DeviceError, error_named
from alignpro_lite.events import Done, Event, Reasoning, Rewritten, Text
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.registry.storage import OnProgress, no_progress
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice, Result
from alignpro_lite.stream import Answering, EventStream, answer_has_begun
from alignpro_lite.wire import (
    Frame,
    FrameWriter,
    LoadOrder,
    PromptOrder,
    pack_order,
    read_frame,
    unpack_reply,
)

_PROGRAM = """
import json, sys
(path,) = json.loads(sys.argv[1])
sys.path += path
from alignpro_lite.engine_process import run_engines
run_engines()
"""
_LONGEST_REASON = 200


class IsolatedModel:
    """A prompter and a frozen target in a process of their own; see `AlignedModel`.

    `AlignedModel.load(..., isolated=True)` makes it. The process ends with `close`, and with
    this one, however that ends.
    """

    def __init__(
        self, order: LoadOrder, on_progress: OnProgress, cancellation: Cancellation
    ) -> None:
        """Start the process and load the models.

        Raises:
            CancelledError: It was cancelled.
            AlignProError: A model, a device or a dependency is missing or unusable.
        """
        self._order = order
        # A fresh process is started like the first one, wherever the app has gone meanwhile.
        try:
            self._launch = _Launch(tuple(isolated_command(_PROGRAM, [])), Path.cwd())
        except OSError as error:
            raise _cannot_start(error) from error
        self._lock = threading.Lock()
        self._closing = Cancellation()
        self._engine = self._started(on_progress, cancellation)

    def __enter__(self) -> IsolatedModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; whoever waits gets a CancelledError. Safe to call twice."""
        self._closing.cancel()  # also a fresh process that is loading, which holds the lock
        with self._lock:
            self._engine.close()

    def rewrite(
        self,
        prompt: str,
        n: int = 1,
        request: Request = Request(),
        cancellation: Cancellation | None = None,
    ) -> list[Rewrite]:
        """Sample rewrites of a prompt without answering it; see `AlignedModel.rewrite`."""
        call = self._running().call("rewrite", PromptOrder(prompt, request, n))
        (cancellation or Cancellation()).enter([Stop(call.cancel)])
        try:
            return cast(list[Rewrite], call.get().body)
        finally:
            call.end()

    def stream(self, prompt: str, request: Request = Request()) -> IsolatedStream:
        """Rewrite a prompt and answer it; see `AlignedModel.stream`.

        Raises:
            DeviceError: The model is closed, or the process ends.
        """
        call = self._running().call("stream", PromptOrder(prompt, request))
        try:
            call.get()
        except BaseException:
            call.end()
            raise
        return IsolatedStream(call, prompt)

    def run(self, prompt: str, request: Request = Request()) -> Result:
        """Rewrite a prompt, answer it, and wait for the whole answer."""
        return self.stream(prompt, request).result()

    def _running(self) -> _Engine:
        """The process; a fresh one with the same models if it has ended."""
        self._engine.home.require()
        with self._lock:
            if self._closing.asked:
                raise DeviceError("The model is closed.", "Load it again.")
            if self._engine.has_ended:
                self._engine = self._started(no_progress, self._closing)
            return self._engine

    def _started(self, on_progress: OnProgress, cancellation: Cancellation) -> _Engine:
        """A process that has loaded the models."""
        engine = _Engine(self._launch)
        try:
            with cancellation.stops(Stop(engine.close)):
                call = engine.call("load", self._order)
                while (frame := call.get()).kind == "progress":
                    on_progress(frame.body)
                call.end()
        except BaseException:
            engine.close()
            cancellation.check()
            raise
        return engine


class IsolatedStream(EventStream):
    """An answer that is made in another process."""

    def __init__(self, call: _EngineCall, prompt: str) -> None:
        super().__init__(_AnsweringElsewhere(call, prompt))
        dropped = weakref.finalize(self, call.end)
        dropped.atexit = False


class _AnsweringElsewhere(Answering):
    """The events that another process sends."""

    def __init__(self, call: _EngineCall, prompt: str) -> None:
        super().__init__(prompt)
        self._call = call
        self._result: Result | None = None
        self._is_held = True
        """Whether the process waits until the next event is asked for."""

    def use(self, text: str) -> Choice:
        """Send this prompt instead; see `EventStream.use`."""
        if not self._is_held or self._result is not None:
            raise answer_has_begun()
        check_prompt(text)
        self._call.send("use", text)
        self.choice = cast(Choice, self._call.get().body)
        return self.choice

    def cancel(self) -> None:
        """Stop as soon as the step under way is done; from any thread."""
        self._call.cancel()

    def result(self) -> Result:
        """What has come of it.

        Raises:
            CancelledError: It ended before it was done.
        """
        if self._result is None:
            raise CancelledError
        return self._result

    def events(self) -> Generator[Event]:
        """The events from the first to the last, each made when it is asked for."""
        try:
            while self._result is None:
                if self._is_held:
                    self._is_held = False
                    self._call.send("go")
                event: Event = self._call.get().body
                self._is_held = not isinstance(event, Reasoning | Text)
                if isinstance(event, Rewritten):
                    self.choice = event.choice
                if isinstance(event, Done):
                    self._result = event.result
                yield event
        finally:
            self._call.end()


class _EngineCall:
    """Something that the engine process was asked for, and what has come of it."""

    def __init__(self, engine: _Engine, number: int) -> None:
        self._engine = engine
        self._number = number
        self.inbox: queue.SimpleQueue[Frame | AlignProError] = queue.SimpleQueue()

    def send(self, kind: str, body: object = None) -> None:
        """Say something; if nobody is there any more, `get` will tell."""
        self._engine.send(Frame(self._number, kind, body))

    def get(self) -> Frame:
        """Wait for the next frame.

        Raises:
            AlignProError: What was asked for failed, or the process has ended.
        """
        while True:
            try:
                found = self.inbox.get(timeout=WAKE_SECONDS)
            except queue.Empty:
                self._engine.home.require()
                continue
            if isinstance(found, AlignProError):
                self.inbox.put(found)
                raise found
            if found.kind == "failure":
                raise error_named(found.body.kind, found.body.problem, found.body.cure)
            return found

    def cancel(self) -> None:
        """Stop the work; from any thread, and when it has ended."""
        self.send("cancel")

    def end(self) -> None:
        """Nobody waits for it any more."""
        if self._engine.forget(self._number):
            self.send("end")


@dataclass(frozen=True)
class _Launch:
    """How engine processes of a model are started.

    Attributes:
        command: Of the interpreter.
        folder: In which they run, and from which relative paths of models start.
    """

    command: tuple[str, ...]
    folder: Path


def _cannot_start(error: OSError) -> DeviceError:
    return DeviceError(
        f"The engine process does not start ({error}).",
        "Check how many processes you may start, or load without isolated=True.",
    )


class _Engine:
    """An engine process as the app sees it."""

    def __init__(self, launch: _Launch) -> None:
        """Start it.

        Raises:
            DeviceError: It cannot be started.
        """
        self.home = HomeProcess("model")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - read when it has ended
        try:
            self._process = subprocess.Popen(
                launch.command,
                cwd=launch.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=child_environment({}),
                creationflags=NO_WINDOW,
            )
        except OSError as error:
            raise _cannot_start(error) from error
        self._writer = FrameWriter(cast(IO[bytes], self._process.stdin), pack_order)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._calls: dict[int, _EngineCall] = {}
        self._failure: AlignProError | None = None
        self._is_closing = False
        self._reader = threading.Thread(target=self._read, name="isolated", daemon=True)
        self._reader.start()
        _engines.add(self)

    @property
    def has_ended(self) -> bool:
        """Whether it will answer nothing any more."""
        return self._failure is not None

    def call(self, kind: str, body: object) -> _EngineCall:
        """Ask for something.

        Raises:
            InputError: It holds what cannot travel.
        """
        with self._lock:
            call = _EngineCall(self, next(self._numbers))
            self._calls[call._number] = call
            if self._failure is not None:
                call.inbox.put(self._failure)
        try:
            call.send(kind, body)
        except BaseException:
            self.forget(call._number)
            raise
        return call

    def send(self, frame: Frame) -> None:
        """Write a frame, if the process is still there and is of this one."""
        if self.home.is_here:
            try:
                self._writer.send(frame)
            except (OSError, ValueError):
                return  # it has ended, and its reader tells every call

    def forget(self, number: int) -> bool:
        """Drop what still comes for a call; False if it was forgotten before."""
        return self._calls.pop(number, None) is not None

    def close(self) -> None:
        """End it. In a fork of this process it stays."""
        if self.home.is_here:
            self._is_closing = True
            self._process.kill()
            self._reader.join()

    def leave_to_parent(self) -> None:
        """In a fork: let go of the pipe by whose end the process knows that the app has ended."""
        leave_to_parent((self._process.stdin, self._process.stdout))

    def _read(self) -> None:
        """Hand frames to their calls until the process ends, then tell those that are left."""
        frames = cast(IO[bytes], self._process.stdout)
        try:
            while (raw := read_frame(frames)) is not None:
                frame = unpack_reply(raw)
                if call := self._calls.get(frame.call):
                    call.inbox.put(frame)
        except ValueError:
            self._process.kill()  # what it says is no frame: it is not what it was
        code = self._process.wait()
        _engines.discard(self)
        frames.close()
        with self._lock:
            self._failure = CancelledError() if self._is_closing else self._crash(code)
            self._errors.close()
            calls = list(self._calls.values())
        for call in calls:
            call.inbox.put(self._failure)

    def _crash(self, code: int) -> DeviceError:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        reason = f" ({said[:_LONGEST_REASON]})" if said else ""
        return DeviceError(
            f"The engine process ended with {how_it_ended(code)}{reason}.",
            "Try again, which starts a fresh one; if that ends too, run `alignpro-lite doctor`.",
        )


_engines: weakref.WeakSet[_Engine] = weakref.WeakSet()


def _leave_all() -> None:
    for engine in list(_engines):
        engine.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
