"""A native context as rows of tokens: a prompt stays cached for others that begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from alignpro_lite.decoding.sampling import Draw

FRESH_TOKENS = 2
"""The last tokens of a prompt are computed anew, and together, however much of it is cached:
engines use a different kernel for a single row, and the same seed must give the same answer."""


_S = TypeVar("_S", contravariant=True)


class CallInterruptedError(Exception):
    """A `prefill` or `decode` was stopped; its rows may hold a part of what it had to append."""


class Stepper(Protocol[_S]):
    """A native context as the loop sees it. Only the loop's thread calls it, but for `interrupt`.

    Rows are numbered 0 to rows - 1; each holds one sequence's KV cache.
    """

    @property
    def rows(self) -> int:
        """How many sequences the context holds at once."""

    @property
    def row_capacity(self) -> int:
        """How many tokens one row holds at most."""

    @property
    def capacity(self) -> int:
        """How many tokens all rows hold together; a prefix shared by rows counts once."""

    @property
    def micro_batch(self) -> int:
        """How many prompt tokens one `prefill` may carry."""

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Append prompt tokens to a row that holds `start` tokens; output 0 is the last one's."""

    def decode(self, rows: Sequence[int], tokens: Sequence[int], starts: Sequence[int]) -> None:
        """Append one token to each row; output i belongs to rows[i]."""

    def interrupt(self) -> None:
        """Stop the `prefill` or `decode` under way, and all until `resume`: CallInterruptedError.

        Called from any thread, also after `close`.
        """

    def resume(self) -> None:
        """Let the next `prefill` or `decode` run."""

    def draw(self, output: int, sampler: _S) -> Draw:
        """Draw a token from an output of the last `prefill` or `decode`.

        Raises:
            InputError: No token fits what this sequence must be; others are not affected.
        """

    def is_stop(self, token: int) -> bool:
        """Whether a token ends the sequence."""

    def share(self, source: int, target: int, length: int) -> None:
        """Make an empty row hold the first `length` tokens of another one."""

    def trim(self, row: int, length: int) -> bool:
        """Forget all but the first `length` tokens; False if only clearing the row is possible."""

    def release(self, sampler: _S) -> None:
        """Free what belongs to a sampler."""

    def close(self) -> None:
        """Free the native context."""


@dataclass
class _Row:
    """What a row's cache holds."""

    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    last_used: int = 0


class RowCache:
    """The rows of a stepper; only the loop's thread uses it."""

    def __init__(self, stepper: Stepper[Any]) -> None:
        self._stepper = stepper
        self._rows = [_Row() for _ in range(stepper.rows)]
        self._clock = 0

    def length(self, row: int) -> int:
        """How many tokens a row holds."""
        return len(self._rows[row].tokens)

    def append(self, row: int, tokens: Sequence[int]) -> None:
        """Note what the stepper has appended to a row."""
        self._rows[row].tokens.extend(tokens)

    def forget_idle(self) -> None:
        """Clear every row that no sequence is using."""
        for row in self._idle():
            self._clear(row)

    def restore(self, rows: Sequence[int]) -> None:
        """Forget what an interrupted call has appended to rows; where that is impossible, all."""
        for row in rows:
            if not self._stepper.trim(row, self.length(row)):
                self._clear(row)

    def make_room(self, prompt: Sequence[int], sequences: int, cells: int) -> int | None:
        """Evict cached prompts, oldest first, until new sequences fit.

        Args:
            prompt: What the new sequences continue.
            sequences: How many there are.
            cells: What they and the running ones may need together, in tokens.

        Returns:
            The row for the prompt, or None if the sequences have to wait.
        """
        idle = self._idle()
        if len(idle) < sequences:
            return None
        chosen = self._row_for(prompt, idle)
        idle.remove(chosen)
        for row in idle:
            if self._fits(cells, idle):
                break
            self._clear(row)
        return chosen if self._fits(cells, idle) else None

    def begin(self, row: int, prompt: Sequence[int]) -> None:
        """Take a row for a prompt, and keep or copy into it what any row holds of that prompt."""
        source = max(range(len(self._rows)), key=lambda other: self._shared(other, prompt))
        start = min(self._shared(source, prompt), max(len(prompt) - FRESH_TOKENS, 0))
        if self._shared(row, prompt) < start:
            self._clear(row)
            self._stepper.share(source, row, start)
        if not self._stepper.trim(row, start):
            start = 0
            self._stepper.trim(row, 0)
        self._take(row, prompt[:start])

    def copy(self, source: int, prompt: Sequence[int]) -> int:
        """Take another row that holds a whole prompt, and give its number."""
        row = self._idle()[0]
        self._clear(row)
        self._stepper.share(source, row, len(prompt))
        self._take(row, prompt)
        return row

    def release(self, row: int, *, keep: bool) -> None:
        """Leave a row; what it holds stays cached.

        Args:
            row: The row.
            keep: Whether it should be among the last to be evicted; not if another row holds the
                same prompt.
        """
        self._clock += 1
        self._rows[row].busy = False
        self._rows[row].last_used = self._clock if keep else 0

    def _take(self, row: int, tokens: Sequence[int]) -> None:
        self._rows[row].tokens = list(tokens)
        self._rows[row].busy = True

    def _clear(self, row: int) -> None:
        self._stepper.trim(row, 0)
        self._rows[row].tokens = []

    def _idle(self) -> list[int]:
        """Rows that no sequence is using: copies first, then empty ones, then the longest unused.

        An empty row may be one that has no memory yet, so a copy that ended goes before it.
        """
        rows = self._rows
        idle = [row for row, state in enumerate(rows) if not state.busy]
        return sorted(idle, key=lambda row: (rows[row].last_used, not rows[row].tokens))

    def _row_for(self, prompt: Sequence[int], idle: Sequence[int]) -> int:
        """The idle row that this prompt continues, else the one unused for longest."""
        # Of several alike not a copy: the new sequences need those.
        best = max(idle, key=lambda row: (self._shared(row, prompt), self._rows[row].last_used))
        shared = self._shared(best, prompt)
        # A row that shares little more than the template belongs to another conversation. One that
        # begins with all of the prompt is its last answer: kept beside the new one, it would slow
        # every step, because llama.cpp's attention goes over the cells of all rows.
        continues = 2 * shared >= self.length(best) or shared == len(prompt)
        return best if continues else idle[0]

    def _fits(self, cells: int, idle: Sequence[int]) -> bool:
        """Whether sequences fit next to what idle rows keep cached."""
        return cells + sum(map(self.length, idle)) <= self._stepper.capacity

    def _shared(self, row: int, prompt: Sequence[int]) -> int:
        """How many leading tokens of a prompt a row holds."""
        length = 0
        for cached, wanted in zip(self._rows[row].tokens, prompt, strict=False):
            if cached != wanted:
                break
            length += 1
        return length


def chunk_end(start: int, end: int, size: int) -> int:
    """Where the next chunk of a prompt ends, so that the last one has FRESH_TOKENS or more.

    Args:
        start: How many tokens are computed.
        end: How many the prompt has.
        size: The most tokens of a chunk.
    """
    stop = min(start + size, end)
    short = 0 < end - stop < FRESH_TOKENS and size > FRESH_TOKENS
    return end - FRESH_TOKENS if short else stop
