"""What an app and its engine process say to each other: frames over two pipes.

A frame is its length in four bytes, then what it says. What the app says is pickled, because an
engine process obeys its app anyway. What the process says is MessagePack, decoded as the type that
its kind has: a model that has taken the process over can send nothing else. With pickle, it could
run code in the app.
"""

from __future__ import annotations

import pickle
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from alignpro_lite.errors import InputError
from alignpro_lite.events import Done, Reasoning, Rewriting, Rewritten, Text
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.registry.storage import Progress
from alignpro_lite.rewriting.candidates import Candidates
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice

_LENGTH_BYTES = 4


@dataclass(frozen=True)
class LoadOrder:
    """Which models to load; see `AlignedModel.load`.

    Attributes:
        target: What answers.
        prompter: What rewrites.
        reward: What scores.
        models: The preset.
        devices: Where to run.
        cache: The folder of pulled models.
    """

    target: str | Path
    prompter: str | Path | None
    reward: str | Path | None
    models: str
    devices: DeviceRequest
    cache: Path | None


@dataclass(frozen=True)
class PromptOrder:
    """Answer a prompt, or rewrite it `count` times."""

    prompt: str
    request: Request
    count: int = 1


@dataclass(frozen=True)
class Failure:
    """An error of this package, by the name of its class."""

    kind: str
    problem: str
    cure: str


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes:
        call: What it belongs to, numbered by the app.
        kind: What it is about: from the app `load`, `stream`, `rewrite`, `go`, `use`, `cancel`
            and `end`; from the process a key of `_REPLIES`.
        body: What it says.
    """

    call: int
    kind: str
    body: Any = None


_EVENTS = (Rewriting, Candidates, Rewritten, Reasoning, Text, Done)
_REPLIES: dict[str, Any] = {
    **{event.__name__: event for event in _EVENTS},
    "progress": Progress,
    "ready": None,
    "rewrites": list[Rewrite],
    "choice": Choice,
    "failure": Failure,
}
_DECODERS = {kind: msgspec.msgpack.Decoder(body) for kind, body in _REPLIES.items()}
_REPLY = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])


def pack_order(frame: Frame) -> bytes:
    """What the app says, as bytes. What it is about is packed by itself, see `order_body`.

    Raises:
        InputError: It holds what cannot travel.
    """
    try:
        body = pickle.dumps(frame.body)
    except Exception as error:  # whatever a class of the app raises where it is pickled
        raise _cannot_travel(error) from error
    return pickle.dumps((frame.call, frame.kind, body))


def unpack_order(raw: bytes) -> Frame:
    """What the app has said, its body still packed."""
    return Frame(*pickle.loads(raw))


def order_body(frame: Frame) -> Any:
    """What an order is about.

    Raises:
        InputError: It holds what this process cannot make; other orders are none the worse.
    """
    try:
        return pickle.loads(frame.body)
    except Exception as error:  # whatever a class of the app raises where it is made
        raise _cannot_travel(error) from error


def _cannot_travel(error: Exception) -> InputError:
    return InputError(
        f"The request holds what cannot travel to the engine process ({error}).",
        "Pass plain strings, numbers, tuples and dictionaries, not classes of the app.",
    )


def pack_reply(frame: Frame) -> bytes:
    """What the process says, as bytes."""
    return msgspec.msgpack.encode((frame.call, frame.kind, frame.body))


def unpack_reply(raw: bytes) -> Frame:
    """What the process has said.

    Raises:
        ValueError: It is no frame of this package.
    """
    try:
        call, kind, body = _REPLY.decode(raw)
        return Frame(call, kind, _DECODERS[kind].decode(body))
    except (msgspec.MsgspecError, KeyError) as error:
        raise ValueError(f"not a frame: {error}") from error


class FrameWriter:
    """Sends frames, from any thread, and from what the garbage collector runs within a `send`."""

    def __init__(self, pipe: IO[bytes], pack: Callable[[Frame], bytes]) -> None:
        self._pipe = pipe
        self._pack = pack
        self._waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def send(self, frame: Frame) -> None:
        """Write a frame, or leave it to whoever is writing one.

        Raises:
            OSError, ValueError: The other side is gone.
        """
        self._waiting.put(self._pack(frame))
        # Whoever holds the lock looks again once it is free, so nothing is left behind.
        while not self._waiting.empty() and self._lock.acquire(blocking=False):
            try:
                self._write_waiting()
            finally:
                self._lock.release()

    def _write_waiting(self) -> None:
        with suppress(queue.Empty):
            while True:
                raw = self._waiting.get_nowait()
                self._pipe.write(len(raw).to_bytes(_LENGTH_BYTES, "big") + raw)
                self._pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes | None:
    """The bytes of the next frame; None at the end."""
    head = pipe.read(_LENGTH_BYTES)
    length = int.from_bytes(head, "big")
    raw = pipe.read(length) if len(head) == _LENGTH_BYTES else b""
    return raw if raw and len(raw) == length else None
