"""The models, on a thread of their own; what happens there reaches the window as signals."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec

from PySide6.QtCore import QObject, Signal

from alignpro_lite import (
    AlignedModel,
    AlignProError,
    Cancellation,
    CancelledError,
    Progress,
    Request,
    Rewritten,
)
from alignpro_lite.answering import AnsweringModel
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.pull import pull_model
from alignpro_lite.stream import EventStream

P = ParamSpec("P")


class Engine(QObject):
    """Loads a preset and answers prompts, one after another.

    The models run in a process of their own (`isolated=True`): if native code fails, the window
    gets an error and the next prompt starts a fresh process.
    """

    progressed = Signal(Progress)
    loaded = Signal(bool)  # whether there is a reward to choose rewrites by
    happened = Signal(object)  # an event of a stream, see alignpro_lite.events
    suggested = Signal(str)  # a rewrite that waits for `decide`
    failed = Signal(str)
    stopped = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._worker = ThreadPoolExecutor(1, "engine")
        self._cancellation = Cancellation()
        self._decisions: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._model: AnsweringModel | None = None
        self._stream: EventStream | None = None

    def load(self, preset: str) -> None:
        """Download what is missing of a preset, and load it instead of what is loaded now."""
        self.stop()
        self._cancellation = Cancellation()
        self._submit(self._load, preset, self._cancellation)

    def ask(self, prompt: str, request: Request, approve: bool) -> None:
        """Answer a prompt; with `approve`, wait for `decide` after each rewrite."""
        self._decisions, self._cancellation = queue.SimpleQueue(), Cancellation()
        self._submit(self._answer, prompt, request, approve)

    def decide(self, text: str) -> None:
        """Send this text to the target."""
        self._decisions.put(text)

    def stop(self) -> None:
        """End what is under way; it says so by a signal."""
        self._cancellation.cancel()
        if (stream := self._stream) is not None:
            stream.cancel()
        self._decisions.put(None)  # last: a rewrite that waits must find its stream cancelled

    def close(self) -> None:
        """End everything and give the memory back."""
        self.stop()
        self._worker.shutdown()
        self._unload()

    def _submit(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        def guarded() -> None:
            try:
                work(*args, **kwargs)
            except CancelledError:
                self.stopped.emit()
            except AlignProError as error:
                self.failed.emit(f"{error.problem}\n{error.cure}")
            except Exception as error:
                self.failed.emit(f"{type(error).__name__}: {error}")
                raise

        with suppress(RuntimeError):  # the window is being closed
            self._worker.submit(guarded)

    def _load(self, preset: str, cancellation: Cancellation) -> None:
        def tell(progress: Progress) -> None:
            cancellation.check()
            self.progressed.emit(progress)

        self._unload()
        store = ModelStore.open(preset=preset)
        has_reward = False
        for entry in store.registry.preset(preset):
            if entry.kind == "reward":
                has_reward = store.cache.is_installed(entry)
            else:
                pull_model(store.registry.downloadable(entry), store.cache, tell)
        self._model = AlignedModel.load(
            reward="default" if has_reward else None,
            models=preset,
            on_progress=tell,
            cancellation=cancellation,
            isolated=True,
        )
        self.loaded.emit(has_reward)

    def _unload(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model = None

    def _answer(self, prompt: str, request: Request, approve: bool) -> None:
        if self._model is None:
            return
        self._stream = stream = self._model.stream(prompt, request)
        if self._cancellation.asked:  # before there was a stream
            stream.cancel()
        try:
            for event in stream.events():
                self.happened.emit(event)
                if approve and isinstance(event, Rewritten) and event.choice.changed:
                    approve = False
                    self.suggested.emit(event.choice.sent)
                    # The answer begins when the next event is asked for, so it waits here.
                    if (text := self._decisions.get()) is not None:
                        stream.use(text)
        finally:
            self._stream = None
