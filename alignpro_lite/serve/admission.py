"""How many requests are answered at once, and how many may wait for that."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from alignpro_lite.serve.problems import HttpProblem

_NEW_WEIGHT = 0.2
"""Of the last request in the average of how long requests take."""


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        parallel: Requests that are answered at once.
        queue: Requests that may wait.
        seconds: After which a request fails, its wait included.
        body_bytes: The longest body.
    """

    parallel: int = 8
    queue: int = 32
    seconds: float = 600.0
    body_bytes: int = 4 << 20


class Admission:
    """A queue of bounded length in front of the models; first come, first served."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places = asyncio.Semaphore(limits.parallel)
        self._usual_seconds = 1.0
        self.waiting = 0
        self.running = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place and hold it; leaving the wait gives it up.

        Raises:
            HttpProblem: 429, because too many are waiting already.
        """
        if self._places.locked() and self.waiting >= self._limits.queue:
            raise self._full()
        self.waiting += 1
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        started = time.monotonic()
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._places.release()
            taken = time.monotonic() - started
            self._usual_seconds += _NEW_WEIGHT * (taken - self._usual_seconds)

    def _full(self) -> HttpProblem:
        turns = (self.waiting + 1) / self._limits.parallel
        wait = max(1, math.ceil(turns * self._usual_seconds))
        return HttpProblem(
            429,
            f"{self.running} requests are being answered and {self.waiting} are waiting, which is "
            f"all that this server takes. Try again in {wait} s.",
            headers={"Retry-After": str(wait)},
        )
