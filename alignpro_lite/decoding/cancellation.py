"""Stops whatever stage of a request is running, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol


class Stage(Protocol):
    """Work that can be cancelled."""

    def cancel(self) -> None:
        """Stop after the current step."""


class Cancellation:
    """The off switch of one request; stages that are entered afterwards stop at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._stages: Sequence[Stage] = ()

    @property
    def asked(self) -> bool:
        """Whether the work should stop."""
        return self._asked.is_set()

    def enter(self, stages: Sequence[Stage]) -> None:
        """Make these the stages that `cancel` stops."""
        self._stages = stages
        if self.asked:
            _cancel(stages)

    def cancel(self) -> None:
        """Stop the current stages and all later ones; safe from any thread, and twice."""
        self._asked.set()
        _cancel(self._stages)


@contextmanager
def deadline(seconds: float | None, stages: Sequence[Stage]) -> Iterator[None]:
    """Cancel stages that are still running after some seconds; None sets no deadline."""
    timer = None
    if seconds is not None:
        wait = min(max(0.0, seconds), threading.TIMEOUT_MAX)  # more than that cannot be waited
        timer = threading.Timer(wait, _cancel, [stages])
    try:
        if timer is not None:
            timer.daemon = True
            timer.start()
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _cancel(stages: Sequence[Stage]) -> None:
    for stage in stages:
        stage.cancel()
