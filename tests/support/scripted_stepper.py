"""A stepper that plays scripts and checks every call, and readers that cannot hang a test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from alignpro_lite.decoding.engine import Stream
from alignpro_lite.decoding.rows import CallInterruptedError
from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.errors import AlignProError

STOP = 0


PATIENCE = 10.0
"""Seconds after which a reader counts as hanging."""


@dataclass
class Script:
    """A sampler that draws given tokens, and the prompt that its row must begin with."""

    prompt: tuple[int, ...]
    tokens: list[int]
    said: int = 0
    released: int = 0

    def next(self) -> int:
        self.said += 1
        return self.tokens[self.said - 1]


@dataclass
class FakeStepper:
    """Rows of cells that may be shared; fails at once if the loop asks for nonsense."""

    rows: int = 4
    row_capacity: int = 100
    capacity: int = 100
    micro_batch: int = 8
    can_trim: bool = True
    before_prefill: Callable[[], object] | None = None
    before_decode: Callable[[], object] | None = None
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    closed: bool = False
    most_cells: int = 0

    def __post_init__(self) -> None:
        self._cells: list[list[int]] = [[] for _ in range(self.rows)]
        self._token_of: list[int] = []
        self._outputs: list[int] = []
        self._owner: int | None = None
        self._interrupted = threading.Event()

    def tokens_of(self, row: int) -> list[int]:
        return [self._token_of[cell] for cell in self._cells[row]]

    def prefill(self, row, tokens, start):
        self._note("prefill", row, tuple(tokens), start)
        if self.before_prefill:
            self.before_prefill()
        assert 0 < len(tokens) <= self.micro_batch
        assert start == len(self._cells[row])
        if self._interrupted.is_set():
            self._append(row, tokens[: len(tokens) // 2])
            raise CallInterruptedError
        self._append(row, tokens)
        self._outputs = [row]

    def decode(self, rows, tokens, starts):
        self._note("decode", tuple(rows), tuple(tokens))
        if self.before_decode:
            self.before_decode()
        assert len(set(rows)) == len(rows) > 0
        assert list(starts) == [len(self._cells[row]) for row in rows]
        if self._interrupted.is_set():
            self._append(rows[0], tokens[:1])
            raise CallInterruptedError
        for row, token in zip(rows, tokens, strict=True):
            self._append(row, [token])
        self._outputs = list(rows)

    def interrupt(self):
        self._interrupted.set()

    def resume(self):
        self._interrupted.clear()

    def draw(self, output, sampler):
        assert sampler.released == 0
        expected = [*sampler.prompt, *sampler.tokens[: sampler.said]]
        assert self.tokens_of(self._outputs[output]) == expected
        return Draw(sampler.next(), -1.0)

    def is_stop(self, token):
        return token == STOP

    def share(self, source, target, length):
        self._note("share", source, target, length)
        assert not self._cells[target]
        self._cells[target] = self._cells[source][:length]

    def trim(self, row, length):
        self._note("trim", row, length)
        if length and not self.can_trim:
            return False
        del self._cells[row][length:]
        return True

    def release(self, sampler):
        sampler.released += 1

    def close(self):
        assert not self.closed
        self.closed = True

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]

    def _note(self, *call: object) -> None:
        self._owner = self._owner or threading.get_ident()
        assert threading.get_ident() == self._owner, "called from two threads"
        assert not self.closed
        self.calls.append(call)

    def _append(self, row: int, tokens: list[int]) -> None:
        for token in tokens:
            self._cells[row].append(len(self._token_of))
            self._token_of.append(token)
        assert len(self._cells[row]) <= self.row_capacity
        used = len({cell for cells in self._cells for cell in cells})
        self.most_cells = max(self.most_cells, used)
        assert used <= self.capacity, f"{used} cells of {self.capacity} in use"


class Gate:
    """Lets the loop through one call at a time, as a test allows it."""

    def __init__(self) -> None:
        self._allowed = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)
        self._open = False

    def __call__(self) -> None:
        self._arrived.release()
        if not self._open:
            assert self._allowed.acquire(timeout=PATIENCE)

    def wait_for_loop(self) -> None:
        assert self._arrived.acquire(timeout=PATIENCE)

    def let_one_through(self) -> None:
        self._allowed.release()

    def open(self) -> None:
        self._open = True
        self._allowed.release()


def scripts(prompt, *sentences):
    return [Script(tuple(prompt), list(sentence)) for sentence in sentences]


def read(stream: Stream[Script]) -> list[int]:
    (tokens,) = read_aside(stream)()
    return tokens


def read_aside(*streams):
    """Read streams on threads of their own; call the result to join them."""
    results: list[object] = [None] * len(streams)

    def work(place: int) -> None:
        try:
            results[place] = [draw.token for draw in streams[place]]
        except AlignProError as error:
            results[place] = error

    threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(len(streams))]
    for thread in threads:
        thread.start()

    def join():
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a reader hangs"
        return results

    return join
