"""What an app and its engine process say to each other: frames of MessagePack over two pipes.

A frame is its length in four bytes, then (call, kind, body). A body is decoded as the type that its
kind has, so that a process that a hostile model has taken over can send nothing else; pickle would
let it run code in the app.
"""

from __future__ import annotations

import threading
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
class ModelName:
    """A model as it was named: by a path, or by a text that may be one.

    Attributes:
        text: The name or the path.
        is_path: Whether it can be nothing but a path.
    """

    text: str
    is_path: bool

    @classmethod
    def of(cls, given: str | Path) -> ModelName:
        """A model as a caller names it."""
        return cls(str(given), isinstance(given, Path))

    @property
    def given(self) -> str | Path:
        """As it was named."""
        return Path(self.text) if self.is_path else self.text


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

    target: ModelName
    prompter: ModelName | None
    reward: ModelName | None
    models: str
    devices: DeviceRequest
    cache: str | None


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


EVENTS = (Rewriting, Candidates, Rewritten, Reasoning, Text, Done)
_BODIES: dict[str, Any] = {
    **{event.__name__: event for event in EVENTS},
    "load": LoadOrder,
    "progress": Progress,
    "ready": None,
    "stream": PromptOrder,
    "rewrite": PromptOrder,
    "rewrites": list[Rewrite],
    "go": None,
    "use": str,
    "choice": Choice,
    "cancel": None,
    "failure": Failure,
}
_DECODERS = {kind: msgspec.msgpack.Decoder(body) for kind, body in _BODIES.items()}
_FRAMES = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])


@dataclass(frozen=True)
class Frame:
    """One message.

    Attributes:
        call: What it belongs to, numbered by the app.
        kind: What its body is, see `_BODIES`.
        body: A value of that type.
    """

    call: int
    kind: str
    body: Any = None


class FrameWriter:
    """Sends frames, from any thread."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, frame: Frame) -> None:
        """Write a frame at once.

        Raises:
            InputError: A text in it is not valid.
            OSError: The other side is gone.
        """
        try:
            raw = self._encoder.encode((frame.call, frame.kind, frame.body))
        except UnicodeEncodeError as error:
            raise InputError(
                f"A text of the request is not valid: {error.reason}.", "Convert it to UTF-8."
            ) from error
        with self._lock:
            self._pipe.write(len(raw).to_bytes(_LENGTH_BYTES, "big") + raw)
            self._pipe.flush()


def read_frame(pipe: IO[bytes]) -> Frame | None:
    """The next frame; None at the end.

    Raises:
        ValueError: What was sent is no frame of this package.
    """
    head = pipe.read(_LENGTH_BYTES)
    if len(head) < _LENGTH_BYTES:
        return None
    raw = pipe.read(int.from_bytes(head, "big"))
    if len(raw) < int.from_bytes(head, "big"):
        return None
    try:
        call, kind, body = _FRAMES.decode(raw)
        return Frame(call, kind, _DECODERS[kind].decode(body))
    except (msgspec.MsgspecError, KeyError) as error:
        raise ValueError(f"not a frame: {error}") from error
