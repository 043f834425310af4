"""Stops whatever stage of a request is running, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from alignpro_lite.errors import CancelledError

T = TypeVar("T")
WAKE_SECONDS = 0.1
"""A blocked thread wakes this often, because Windows delivers Ctrl-C only between waits."""


class Stage(Protocol):
    """Work that can be cancelled."""

    def cancel(self) -> None:
        """Stop after the current step."""


class Cancellation:
    """The off switch of one request; stages that are entered afterwards stop at once."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._stages: Sequence[Stage] = ()
        self._beside: list[Stage] = []
        """Work of other threads."""

    @property
    def asked(self) -> bool:
        """Whether the work should stop."""
        return self._asked.is_set()

    def enter(self, stages: Sequence[Stage]) -> None:
        """Make these the stages that `cancel` stops."""
        self._stages = stages
        if self.asked:
            _cancel(stages)

    @contextmanager
    def stops(self, stage: Stage) -> Iterator[None]:
        """Stop this work too if `cancel` is called within the block; for work of several threads.

        Raises:
            CancelledError: It was asked for before.
        """
        self.check()
        self._beside.append(stage)
        try:
            if self.asked:  # since the check
                stage.cancel()
            yield
        finally:
            self._beside.remove(stage)

    def check(self) -> None:
        """Go no further if the work should stop.

        Raises:
            CancelledError: It should.
        """
        if self.asked:
            raise CancelledError("The loading was cancelled.", "Load the model again.")

    def cancel(self) -> None:
        """Stop the current stages and all later ones; safe from any thread, and twice."""
        self._asked.set()
        _cancel([*self._stages, *self._beside])


@dataclass(frozen=True)
class Stop:
    """Work that a function stops; calling it twice must be safe."""

    cancel: Callable[[], None]


@dataclass(frozen=True)
class LoadWatch:
    """Who watches the loading of a model.

    Attributes:
        cancellation: Stops it.
        report: Told which share of the model is loaded, 0 to 1; from the thread that loads it.
    """

    cancellation: Cancellation = field(default_factory=Cancellation)
    report: Callable[[float], None] = lambda share: None


def until_cancelled(
    work: Callable[[], T], cancellation: Cancellation, discard: Callable[[T], None]
) -> T:
    """Do work on a thread of its own, for which a caller who cancels does not wait.

    Nor does one whom Ctrl-C interrupts. Where the work cannot be stopped, it ends later.

    Args:
        work: Stops as soon as it can when it is cancelled.
        cancellation: Lets the caller go.
        discard: Called on its thread with what the work returns when nobody waits any more.

    Raises:
        CancelledError: It was cancelled.
    """
    future: Future[T] = Future()
    over = threading.Event()
    future.add_done_callback(lambda _: over.set())

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it reaches the caller
            future.set_exception(error)

    def drop(_: Future[T]) -> None:
        if future.exception() is None:
            discard(future.result())

    try:
        with cancellation.stops(Stop(over.set)):
            threading.Thread(target=run, name="loading").start()
            while not over.wait(WAKE_SECONDS):
                pass
            cancellation.check()
    except BaseException:
        cancellation.cancel()
        future.add_done_callback(drop)
        raise
    return future.result()


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
