"""Events of a request, until the library has its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from alignpro_lite.aligned import AlignedStream
from alignpro_lite.rewriting.result import Choice, Result


@dataclass(frozen=True)
class Rewritten:
    """Which prompt goes to the target."""

    choice: Choice


@dataclass(frozen=True)
class Reasoning:
    """A piece of the thought."""

    text: str


@dataclass(frozen=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The last event."""

    result: Result


Event = Rewritten | Reasoning | Text | Done


def events_of(stream: AlignedStream) -> Iterator[Event]:
    """All that happens."""
    yield Rewritten(stream.prepare())
    for passage in stream.passages():
        yield Reasoning(passage.text) if passage.is_thought else Text(passage.text)
    yield Done(stream.result())
