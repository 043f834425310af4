"""`AsyncAlignedModel`: the same model for asyncio. A task that is cancelled cancels its work.

Each step of a stream waits on a thread of the model's own pool, and the next one begins when it is
asked for: whoever reads slowly holds nothing back but their own stream, and between `Rewritten` and
the next event there is all the time that a user takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from alignpro_lite.aligned import AlignedModel
from alignpro_lite.answering import AnsweringModel
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.engine import HomeProcess
from alignpro_lite.errors import DeviceError
from alignpro_lite.events import Event, Text
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.registry import DEFAULT
from alignpro_lite.registry.storage import OnProgress, Progress, no_progress
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice, Result
from alignpro_lite.stream import EventStream

T = TypeVar("T")

MOST_WAITING = 64
"""Threads of a model's pool, started as they are needed: so many streams wait at the same time, and
others for one of these."""


class AsyncAlignedStream:
    """An answer being made: `async for` gives pieces of text; see `AlignedStream`.

    What is wrong with a request is raised by the first thing that you await: to check a constraint,
    or to start a fresh process after a crash, may take seconds.
    """

    def __init__(self, opening: Callable[[], EventStream], pool: _Pool) -> None:
        self._opening = opening
        self._pool = pool
        self._cancellation = Cancellation()
        self._stream: EventStream | None = None

    @property
    def choice(self) -> Choice | None:
        """Which prompt goes to the target; None before it is known."""
        return self._stream.choice if self._stream else None

    async def __aiter__(self) -> AsyncIterator[str]:
        """Pieces of the answer; iterating again continues the same answer."""
        async for event in self.events():
            if isinstance(event, Text):
                yield event.text

    async def events(self) -> AsyncIterator[Event]:
        """All that happens, as it happens; see `AlignedStream.events`."""
        while (event := await self._wait(_next_event)) is not None:
            yield event

    async def prepare(self) -> Choice:
        """Rewrite the prompt, without answering it yet; see `AlignedStream.prepare`."""
        return await self._wait(EventStream.prepare)

    async def result(self) -> Result:
        """Read the rest of the answer and sum it up."""
        return await self._wait(EventStream.result)

    async def use(self, text: str) -> Choice:
        """Send this prompt instead, before the answer begins; see `AlignedStream.use`."""
        return await self._wait(lambda stream: stream.use(text))

    def cancel(self) -> None:
        """Stop as soon as the step under way is done; from any task or thread."""
        self._cancellation.cancel()

    async def _wait(self, step: Callable[[EventStream], T]) -> T:
        return await _in_pool(self._pool, lambda: step(self._opened()), self.cancel)

    def _opened(self) -> EventStream:
        if self._stream is None:
            self._stream = self._opening()
            self._cancellation.enter([self._stream])
        return self._stream


def _next_event(stream: EventStream) -> Event | None:
    return next(stream.events(), None)


class AsyncAlignedModel:
    """A prompter and a frozen target for asyncio, loaded and ready; see `AlignedModel`.

    Use it with `async with`, or await `close`, to give memory and threads back.

    >>> async with await AsyncAlignedModel.load(target="model.gguf") as model:  # doctest: +SKIP
    ...     async for piece in model.stream("How do I stay safe online?"):
    ...         print(piece, end="")
    """

    def __init__(self, model: AnsweringModel, pool: _Pool | None = None) -> None:
        """Take over a loaded model; `close` closes it."""
        self.model = model
        self._pool = pool or _Pool()
        self._is_closed = False

    @classmethod
    async def load(
        cls,
        target: str | Path = DEFAULT,
        prompter: str | Path | None = DEFAULT,
        reward: str | Path | None = None,
        *,
        models: str = DEFAULT,
        devices: DeviceRequest = DeviceRequest(),
        cache: Path | None = None,
        on_progress: OnProgress = no_progress,
        isolated: bool = False,
    ) -> AsyncAlignedModel:
        """Load the models; `on_progress` is called in the event loop. See `AlignedModel.load`.

        Raises:
            AlignProError: A model, a device or a dependency is missing or unusable.
            asyncio.CancelledError: The task was cancelled; the loading has been, too.
            Exception: What `on_progress` raised, which ends the loading.
        """
        loop = asyncio.get_running_loop()
        cancellation = Cancellation()
        raised: Future[None] = Future()  # by on_progress

        def inform(progress: Progress) -> None:
            try:
                on_progress(progress)
            except Exception as error:  # noqa: BLE001 - `load` raises it
                cancellation.cancel()
                if not raised.done():
                    raised.set_exception(error)

        def tell(progress: Progress) -> None:
            loop.call_soon_threadsafe(inform, progress)

        def load() -> AnsweringModel:
            return AlignedModel.load(
                target,
                prompter,
                reward,
                models=models,
                devices=devices,
                cache=cache,
                on_progress=tell,
                cancellation=cancellation,
                isolated=isolated,
            )

        pool = _Pool()
        loading = pool.submit(load)
        try:
            return cls(await _ended(loading, cancellation.cancel), pool)
        except BaseException:
            cancellation.cancel()
            await _on_own_thread(lambda: _dismiss(loading, pool))
            if raised.done():
                raised.result()
            raise

    async def __aenter__(self) -> AsyncAlignedModel:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Cancel what is running, and free memory and threads; safe to call twice.

        Whoever waits for something gets a CancelledError of this package.
        """
        if not self._is_closed:
            self._is_closed = True
            await _on_own_thread(self._close)

    def _close(self) -> None:
        try:
            self.model.close()
        finally:
            self._pool.shutdown()

    async def rewrite(self, prompt: str, n: int = 1, request: Request = Request()) -> list[Rewrite]:
        """Sample rewrites of a prompt without answering it; see `AlignedModel.rewrite`."""
        cancellation = Cancellation()
        return await _in_pool(
            self._pool,
            lambda: self.model.rewrite(prompt, n, request, cancellation),
            cancellation.cancel,
        )

    def stream(self, prompt: str, request: Request = Request()) -> AsyncAlignedStream:
        """Rewrite a prompt and answer it; iterate over what it returns with `async for`."""
        return AsyncAlignedStream(lambda: self.model.stream(prompt, request), self._pool)

    async def run(self, prompt: str, request: Request = Request()) -> Result:
        """Rewrite a prompt, answer it, and wait for the whole answer."""
        return await self.stream(prompt, request).result()


class _Pool(ThreadPoolExecutor):
    """Threads that wait for a model.

    Attributes:
        home: The process that has them; in a fork of it, what is submitted would never begin.
    """

    def __init__(self) -> None:
        super().__init__(MOST_WAITING, thread_name_prefix="alignpro-lite")
        self.home = HomeProcess("model")


def _dismiss(loading: Future[AnsweringModel], pool: _Pool) -> None:
    """Wait for a loading that nobody waits for any more, and close what was ready already."""
    if loading.exception() is None:
        loading.result().close()
    pool.shutdown()


async def _on_own_thread(work: Callable[[], None]) -> None:
    """Wait for what closes: a pool's threads may all wait for what only this ends."""
    with ThreadPoolExecutor(1, thread_name_prefix="alignpro-lite-close") as closing:
        await _ended(closing.submit(work), _nothing)


def _nothing() -> None:
    """What cannot be stopped."""


async def _in_pool(pool: _Pool, work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Wait for work on a thread of a pool; see `_ended`.

    Raises:
        DeviceError: The pool is shut, or belongs to another process.
    """
    pool.home.require()
    try:
        future = pool.submit(work)
    except RuntimeError as error:
        raise DeviceError("The model is closed.", "Load it again.") from error

    def stop_or_drop() -> None:
        stop()
        future.cancel()  # if no thread was free for it yet

    return await _ended(future, stop_or_drop)


async def _ended(future: Future[T], stop: Callable[[], None]) -> T:
    """Wait for work on a thread; a task that is cancelled stops it, and waits until it ended."""
    waited = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waited)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait([waited])
        if not waited.cancelled():
            waited.exception()  # seen: nobody else asks for it
        raise
