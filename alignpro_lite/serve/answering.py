"""From the models' threads to the server's loop: the events of all answers to one request."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from alignpro_lite.aligned import AlignedModel
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.events import Done, Event, Reasoning, Rewriting, Rewritten, Text
from alignpro_lite.rewriting.candidates import Candidates
from alignpro_lite.rewriting.result import Choice
from alignpro_lite.serve.asked import Asked
from alignpro_lite.stream import AlignedStream

_MOST_AT_ONCE = 64
"""Events that are handed on together where a client is slower than the models."""


@dataclass(frozen=True)
class Happening:
    """An event of one of the answers.

    Attributes:
        number: Which answer, from 0.
        event: What happened.
    """

    number: int
    event: Event


class Answerer:
    """Asks the models on threads; their own loops decode together what all threads want."""

    def __init__(self, model: AlignedModel, threads: int) -> None:
        """Make ready; the caller closes the model.

        Args:
            model: The prompter and the target.
            threads: How many answers are read at once.
        """
        self._model = model
        self._without_reward = AlignedModel(model.target, model.prompter, model.plan)
        self._pool = ThreadPoolExecutor(threads, "answer")

    @property
    def has_reward(self) -> bool:
        """Whether a reward is loaded that can choose among rewrites."""
        return self._model.reward is not None

    def close(self) -> None:
        """Let the threads end; answers under way are their readers' to cancel."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def choose(self, asked: Asked) -> Choice:
        """Rewrite the prompt without answering it.

        Raises:
            AlignProError: See `AlignedStream.prepare`.
        """
        cancellation = Cancellation()

        def prepare() -> Choice:
            stream = self._stream(asked)
            cancellation.enter([stream])
            return stream.prepare()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, prepare)
        finally:
            cancellation.cancel()

    async def answer(self, asked: Asked) -> AsyncGenerator[list[Happening]]:
        """Rewrite the prompt once and answer it; closing the generator cancels the work.

        Yields:
            What has happened since: texts of all answers if a stream is asked for, how far the
            rewrite is if that is asked for, and one `Done` each.

        Raises:
            AlignProError: See `AlignedStream`.
        """
        reading = _Reading(self._pool, _told(asked))
        try:
            reading.begin(0, partial(self._stream, asked))
            left = asked.count
            while left:
                happenings = await reading.next()
                for happening in happenings:
                    if isinstance(happening.event, Rewritten):
                        for number in range(1, asked.count):
                            choice = happening.event.choice
                            reading.begin(number, partial(self._another, asked, choice, number))
                    left -= isinstance(happening.event, Done)
                yield happenings
        finally:
            reading.cancel()

    def _stream(self, asked: Asked) -> AlignedStream:
        model = self._model if asked.align.reward else self._without_reward
        stream = model.stream(asked.prompt, asked.request)
        if asked.align.rewrite is not None:
            stream.use(asked.align.rewrite)
        return stream

    def _another(self, asked: Asked, choice: Choice, number: int) -> AlignedStream:
        """One more answer to the prompt in use."""
        seed = stream_seed(asked.request.sampling.seed, number)
        stream = self._model.stream(asked.prompt, asked.request.with_seed(seed))
        stream.use(choice.sent)
        return stream


def _told(asked: Asked) -> tuple[type[Event], ...]:
    """The kinds of events that a request needs before its end, and its end."""
    told: set[type[Event]] = {Done}
    if asked.count > 1:
        told.add(Rewritten)  # the others begin with it
    if asked.is_stream:
        told |= {Reasoning, Text}
        if asked.align.progress:
            told |= {Rewriting, Candidates, Rewritten}
    return tuple(told)


class _Reading:
    """Streams that are read on threads, and their events in the order in which they come.

    To wake the loop is much of what a token costs, so it is woken once for all that waits, and not
    for events that nobody is told of.
    """

    def __init__(self, pool: ThreadPoolExecutor, told: tuple[type[Event], ...]) -> None:
        self._pool = pool
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._events: deque[Happening | BaseException] = deque()
        self._have_come = asyncio.Event()
        self._is_waking = False
        self._cancellations: list[Cancellation] = []

    def begin(self, number: int, open_stream: Callable[[], AlignedStream]) -> None:
        """Open a stream on a thread and read it there."""
        cancellation = Cancellation()
        self._cancellations.append(cancellation)
        self._pool.submit(self._read, number, open_stream, cancellation)

    def _read(
        self, number: int, open_stream: Callable[[], AlignedStream], cancellation: Cancellation
    ) -> None:
        try:
            stream = open_stream()
            cancellation.enter([stream])
            for event in stream.events():
                if self._is_told(number, event):
                    self._put(Happening(number, event))
        except BaseException as error:  # noqa: BLE001 - raised where the events are read
            self._put(error)

    def _is_told(self, number: int, event: Event) -> bool:
        is_repeated = number > 0 and isinstance(event, Rewritten)  # the prompt is that of the first
        return isinstance(event, self._told) and not is_repeated

    def _put(self, event: Happening | BaseException) -> None:
        self._events.append(event)
        if not self._is_waking:
            self._is_waking = True
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._is_waking = False  # first: what is put from here on wakes the loop again
        self._have_come.set()

    async def next(self) -> list[Happening]:
        """The events that have come, at least one.

        Raises:
            AlignProError: One of the streams failed.
        """
        if self._events:
            await asyncio.sleep(0)  # others, and hang-ups, have a turn
        while not self._events:
            self._have_come.clear()
            await self._have_come.wait()
        found: list[Happening] = []
        while self._events and len(found) < _MOST_AT_ONCE:
            event = self._events.popleft()
            if isinstance(event, BaseException):
                if not found:
                    raise event
                self._events.appendleft(event)
                break
            found.append(event)
        return found

    def cancel(self) -> None:
        """Stop all that is not done."""
        for cancellation in self._cancellations:
            cancellation.cancel()
