"""In an engine process: load the models once, then answer what the app asks, until it is gone.

The app holds the other end of stdin. When that closes, however the app has ended, this process ends
too.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO

from alignpro_lite.aligned import AlignedModel
from alignpro_lite.decoding.cancellation import Cancellation, Stop
from alignpro_lite.errors import AlignProError, DeviceError
from alignpro_lite.events import Reasoning, Text
from alignpro_lite.registry.storage import Progress
from alignpro_lite.stream import AlignedStream
from alignpro_lite.wire import (
    Failure,
    Frame,
    FrameWriter,
    LoadOrder,
    PromptOrder,
    order_body,
    pack_reply,
    read_frame,
    unpack_order,
)


def run_engines() -> None:
    """Answer frames of stdin on stdout; see `wire`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is meant for the app
    frames = sys.stdin.buffer
    # What native code prints must not come between the frames.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _EngineProcess(FrameWriter(replies, pack_reply)).run(frames)
    os._exit(0)  # at once, whatever is being decoded


class _EngineProcess:
    """The models, and the calls that are under way."""

    def __init__(self, replies: FrameWriter) -> None:
        self._replies = replies
        self._model: AlignedModel | None = None
        self._calls: dict[int, _Call] = {}

    def run(self, frames: IO[bytes]) -> None:
        """Take frames until the app is gone."""
        while (raw := read_frame(frames)) is not None:
            frame = unpack_order(raw)
            if (call := self._calls.get(frame.call)) is not None:
                call.take(frame)
            elif frame.kind in ("load", "stream", "rewrite"):
                call = self._calls[frame.call] = _Call(frame.call, self._replies)
                threading.Thread(target=self._work, args=(call, frame), daemon=True).start()
            # Anything else is for a call that has ended meanwhile.

    def _work(self, call: _Call, frame: Frame) -> None:
        works: dict[str, Callable[[_Call, Frame], None]] = {
            "load": self._load,
            "stream": self._stream,
            "rewrite": self._rewrite,
        }
        try:
            works[frame.kind](call, frame)
        except OSError:
            return  # the app is gone
        except AlignProError as error:
            call.reply("failure", Failure(type(error).__name__, error.problem, error.cure))
        except Exception as error:  # noqa: BLE001 - the app gets it
            problem = f"The engine process failed ({type(error).__name__}: {error})."
            call.reply("failure", Failure(DeviceError.__name__, problem, "Try again."))
        finally:
            self._calls.pop(call.number, None)

    def _load(self, call: _Call, frame: Frame) -> None:
        order: LoadOrder = order_body(frame)

        def tell(progress: Progress) -> None:
            call.reply("progress", progress)

        self._model = AlignedModel.load(
            order.target,
            order.prompter,
            order.reward,
            models=order.models,
            devices=order.devices,
            cache=order.cache,
            on_progress=tell,
        )
        call.reply("ready")

    def _stream(self, call: _Call, frame: Frame) -> None:
        ask: PromptOrder = order_body(frame)
        stream = self._loaded.stream(ask.prompt, ask.request)
        call.cancelled_by(stream.cancel)
        call.reply("ready")
        call.wait(stream)
        for event in stream.events():
            call.reply(type(event).__name__, event)
            if not isinstance(event, Reasoning | Text):
                call.wait(stream)

    def _rewrite(self, call: _Call, frame: Frame) -> None:
        ask: PromptOrder = order_body(frame)
        cancellation = Cancellation()
        call.cancelled_by(cancellation.cancel)
        found = self._loaded.rewrite(ask.prompt, ask.count, ask.request, cancellation)
        call.reply("rewrites", found)

    @property
    def _loaded(self) -> AlignedModel:
        if self._model is None:
            raise DeviceError("The engine process has no model.", "Load it first.")
        return self._model


class _Call:
    """Something that the app waits for."""

    def __init__(self, number: int, replies: FrameWriter) -> None:
        self.number = number
        self._replies = replies
        self._inbox: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._cancellation = Cancellation()

    def reply(self, kind: str, body: object = None) -> None:
        self._replies.send(Frame(self.number, kind, body))

    def cancelled_by(self, cancel: Callable[[], None]) -> None:
        """What ends the work, now or as soon as the app asks for it."""
        self._cancellation.enter([Stop(cancel)])

    def take(self, frame: Frame) -> None:
        """A frame for this call, from the thread that reads them."""
        if frame.kind in ("cancel", "end"):
            self._cancellation.cancel()
        if frame.kind != "cancel":
            self._inbox.put(frame)

    def wait(self, stream: AlignedStream) -> None:
        """Until the app asks for what comes next, it may choose another prompt.

        Also once the stream is cancelled: the app awaits an answer to each choice, and nothing
        else. Only when nobody asks any more, there is nothing to wait for, now and later.
        """
        while (frame := self._inbox.get()).kind == "use":
            try:
                self.reply("choice", stream.use(order_body(frame)))
            except AlignProError as error:
                self.reply("failure", Failure(type(error).__name__, error.problem, error.cure))
        if frame.kind == "end":
            self._inbox.put(frame)
