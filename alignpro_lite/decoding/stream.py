"""The tokens of one sequence, on their way from the decoding loop to its reader."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Generic, Literal, TypeVar

from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.errors import AlignProError

FinishReason = Literal["stop", "length", "cancelled"]
S = TypeVar("S")

_WAKE_SECONDS = 0.2
"""A blocked reader wakes this often, because Windows delivers Ctrl-C only between waits."""


class Stream(Generic[S]):
    """The tokens of one sequence, read once, in order, from any thread."""

    def __init__(self, sampler: S) -> None:
        self.sampler = sampler
        self.finish_reason: FinishReason | None = None
        self._failure: AlignProError | None = None
        self.cancelled = threading.Event()
        self.ended = False
        """Set by the loop once it has let go of the sequence."""
        self._events: queue.SimpleQueue[Draw | FinishReason | AlignProError] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Draw]:
        """Yield tokens until the sequence ends; the stop token is the last one.

        Raises:
            CancelledError: The model was closed meanwhile.
            AlignProError: The engine failed.
        """
        while self.finish_reason is None:
            try:
                event = self._events.get(timeout=_WAKE_SECONDS)
            except queue.Empty:
                continue
            if isinstance(event, Draw):
                yield event
            elif isinstance(event, AlignProError):
                self.finish_reason, self._failure = "cancelled", event
            else:
                self.finish_reason = event
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        """Stop after the step under way. Safe from any thread, and when already ended."""
        self.cancelled.set()

    def put(self, event: Draw | FinishReason | AlignProError) -> None:
        """Hand an event to the reader (the loop's side)."""
        self._events.put(event)
