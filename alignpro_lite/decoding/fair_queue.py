"""A queue in which callers take turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

J = TypeVar("J")


class FairQueue(Generic[J]):
    """Jobs that wait: each caller's in their order, and one of each caller after the other.

    A caller who asks for a hundred answers at once makes nobody wait for all of them.
    """

    def __init__(self) -> None:
        self._lines: dict[int, deque[J]] = {}
        """The jobs of each caller; the first caller is whose turn it is."""

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __iter__(self) -> Iterator[J]:
        for line in self._lines.values():
            yield from line

    def put(self, caller: int, job: J) -> None:
        """Let a job wait behind the others of its caller."""
        self._lines.setdefault(caller, deque()).append(job)

    def first(self) -> J:
        """The job whose turn it is."""
        return next(iter(self))

    def take(self) -> J:
        """Take out the job whose turn it is; then it is another caller's."""
        caller = next(iter(self._lines))
        line = self._lines.pop(caller)
        job = line.popleft()
        if line:
            self._lines[caller] = line
        return job
