"""From the models' threads to the server's loop: the events of all answers to one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from alignpro_lite.aligned import AlignedModel
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.events import Done, Event, Rewritten
from alignpro_lite.rewriting.result import Choice
from alignpro_lite.serve.asked import Asked
from alignpro_lite.stream import AlignedStream


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

    async def answer(self, asked: Asked) -> AsyncGenerator[Happening]:
        """Rewrite the prompt once and answer it; closing the generator cancels the work.

        Yields:
            `Rewritten` once, then texts of all answers as they come, and one `Done` each.

        Raises:
            AlignProError: See `AlignedStream`.
        """
        reading = _Reading(self._pool)
        try:
            reading.begin(0, partial(self._stream, asked))
            left = asked.count
            while left:
                happening = await reading.next()
                if isinstance(happening.event, Rewritten):
                    if happening.number:
                        continue
                    for number in range(1, asked.count):
                        choice = happening.event.choice
                        reading.begin(number, partial(self._another, asked, choice, number))
                left -= isinstance(happening.event, Done)
                yield happening
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
        request = replace(asked.request.with_seed(seed), rewrite="off")
        return self._model.stream(choice.sent, request)


class _Reading:
    """Streams that are read on threads, and their events in the order in which they come."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Happening | BaseException] = asyncio.Queue()
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
                self._put(Happening(number, event))
        except BaseException as error:  # noqa: BLE001 - raised where the events are read
            self._put(error)

    def _put(self, event: Happening | BaseException) -> None:
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self) -> Happening:
        """The next event.

        Raises:
            AlignProError: One of the streams failed.
        """
        await asyncio.sleep(0)  # whoever reads much at once lets others, and hang-ups, have a turn
        event = await self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    def cancel(self) -> None:
        """Stop all that is not done."""
        for cancellation in self._cancellations:
            cancellation.cancel()
