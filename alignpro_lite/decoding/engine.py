"""The batched loop that every model runs in: one thread, one native context.

A caller submits a prompt with any number of sequences to sample from it and
reads their tokens as they come. The loop computes the shared prompt once,
steps all live sequences of all callers together, lets each leave when it ends
or is cancelled, and keeps finished prompts cached for the next caller that
starts the same way. Callers whose prompts have to wait take turns. What a step
means is up to the `Stepper`: llama.cpp's is in `target/llama.py`, onnxruntime's
in `prompter/decoder.py`.
"""

from __future__ import annotations

import atexit
import math
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Literal, TypeVar

from alignpro_lite.decoding.cancellation import WAKE_SECONDS
from alignpro_lite.decoding.fair_queue import FairQueue
from alignpro_lite.decoding.rows import CallInterruptedError, RowCache, Stepper, chunk_end
from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.errors import (
    AlignProError,
    CancelledError,
    ContextOverflowError,
    DeviceError,
    InputError,
    ModelFileError,
)

FinishReason = Literal["stop", "length", "cancelled"]
S = TypeVar("S")

_NOTHING = -1


@dataclass(frozen=True)
class HomeProcess:
    """The process in which a model was loaded: its threads are not there in a fork of it.

    Attributes:
        name: What errors call the model.
        pid: The process.
    """

    name: str
    pid: int = field(default_factory=os.getpid)

    @property
    def is_here(self) -> bool:
        """Whether this is the process."""
        return os.getpid() == self.pid

    def require(self) -> None:
        """Refuse to wait for threads that are not there.

        Raises:
            DeviceError: This process was forked from the one that loaded the model.
        """
        if not self.is_here:
            raise DeviceError(
                f"The {self.name} was loaded by process {self.pid}, from which this one was "
                "forked, and a fork has none of its threads.",
                "Load the model in the process that uses it, or start processes with "
                '`multiprocessing.get_context("spawn")`.',
            )


class Stream(Generic[S]):
    """The tokens of one sequence, read once, in order, from any thread."""

    def __init__(self, sampler: S, home: HomeProcess, cancelling: Callable[[], None]) -> None:
        """A stream of a loop.

        Args:
            sampler: What its tokens are drawn with.
            home: Where the loop runs.
            cancelling: Called once it is cancelled.
        """
        self.sampler = sampler
        self._home = home
        self._cancelling = cancelling
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
            AlignProError: The engine failed, or is not in this process.
        """
        while self.finish_reason is None:
            try:
                event = self._events.get(timeout=WAKE_SECONDS)
            except queue.Empty:
                self._home.require()
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
        """End it for its reader at once. Safe from any thread, and when already ended.

        The loop lets go of it after the step under way, which is stopped unless others share it.
        """
        if not self.cancelled.is_set():
            self.cancelled.set()
            self._events.put("cancelled")
            self._cancelling()

    def put(self, event: Draw | FinishReason | AlignProError) -> None:
        """Hand an event to the reader (the loop's side)."""
        self._events.put(event)


def replayed_log_probs(streams: Sequence[Stream[S]], lengths: Sequence[int]) -> list[float]:
    """Log-probabilities of what sequences replay, of so many tokens each; then they end."""
    try:
        return [
            math.fsum(draw.log_prob for draw in islice(stream, length))
            for stream, length in zip(streams, lengths, strict=True)
        ]
    finally:
        for stream in streams:
            stream.cancel()


@dataclass(frozen=True)
class Submission(Generic[S]):
    """What a caller wants decoded.

    Attributes:
        prompt: Token ids; computed once and shared by all sequences.
        samplers: One a sequence, each with its own random stream.
        max_tokens: The most tokens of each sequence, the stop token included.
    """

    prompt: Sequence[int]
    samplers: Sequence[S]
    max_tokens: int


@dataclass(frozen=True)
class _Job(Generic[S]):
    """A prompt and the sequences that continue it."""

    prompt: tuple[int, ...]
    streams: tuple[Stream[S], ...]
    max_tokens: int
    fresh: bool
    caller: int
    """The thread that asks."""

    @property
    def cells(self) -> int:
        return len(self.prompt) + self.max_tokens * len(self.streams)


@dataclass
class _Live(Generic[S]):
    """A sequence being decoded."""

    job: _Job[S]
    stream: Stream[S]
    row: int
    is_copy: bool
    """Whether another sequence of the job keeps the prompt cached."""
    pending: int
    """The last drawn token, not yet in the cache; _NOTHING before the first one."""
    left: int
    """How many more tokens it may draw."""


class Engine(Generic[S]):
    """Owns a stepper on a thread of its own and batches what callers submit."""

    def __init__(self, stepper: Stepper[S], name: str, overflow_cure: str) -> None:
        """Start the loop.

        Args:
            stepper: The native context; the engine closes it.
            name: What errors call the model.
            overflow_cure: What a user can do when a prompt does not fit.
        """
        self._stepper = stepper
        self._name = name
        self._home = HomeProcess(name)
        self._overflow_cure = overflow_cure
        self._rows = RowCache(stepper)
        self._live: list[_Live[S]] = []
        self._filling: tuple[_Job[S], int] | None = None
        """The one job whose prompt is being computed, a chunk a turn of the loop, and its row."""
        self._is_spoiled = False
        """Whether a cached prompt led to values that are not numbers."""
        self._waiting: FairQueue[_Job[S]] = FairQueue()
        self._inbox: queue.SimpleQueue[tuple[_Job[S], ...] | None] = queue.SimpleQueue()
        self._gate = threading.RLock()
        """Reentrant, because the garbage collector may cancel a stream anywhere."""
        self._closed = False
        self.failure: AlignProError | None = None
        """Why it decodes nothing any more: it failed, or was closed; None while it runs."""
        self._served: tuple[Stream[S], ...] = ()
        """Whom the native call under way is for, or the last one."""
        _running.add(self)
        self._thread = threading.Thread(target=self._run, name=f"{name}-engine", daemon=True)
        self._thread.start()

    def submit(
        self,
        prompt: Sequence[int],
        samplers: Sequence[S],
        max_tokens: int,
        *,
        fresh: bool = False,
    ) -> list[Stream[S]]:
        """Queue the sequences of one `Submission`; see `submit_together`."""
        (streams,) = self.submit_together([Submission(prompt, samplers, max_tokens)], fresh=fresh)
        return streams

    def submit_together(
        self, submissions: Sequence[Submission[S]], *, fresh: bool = False
    ) -> list[list[Stream[S]]]:
        """Queue several submissions, all or none, that begin in the same step.

        Which sequences are decoded side by side, and so how every number is rounded, then does not
        depend on how soon the loop wakes.

        Args:
            submissions: What to decode.
            fresh: Whether to forget cached prompts first. Rounding depends on what is cached and on
                what is decoded at the same time; numbers that must depend on the prompt alone need
                this.

        Returns:
            For each submission one stream a sampler, in order.

        Raises:
            ContextOverflowError: A prompt and the tokens asked for can never fit.
            DeviceError: The engine is closed, or belongs to another process.
            InputError: There is no prompt, or no token is asked for.
        """
        self._home.require()
        for submission in submissions:
            self.require_room(
                len(submission.prompt), submission.max_tokens, len(submission.samplers)
            )
        # Only the first one forgets: the others share what it computes.
        jobs = tuple(
            _Job(
                tuple(submission.prompt),
                tuple(
                    Stream(sampler, self._home, self._interrupt_unwanted)
                    for sampler in submission.samplers
                ),
                submission.max_tokens,
                fresh and number == 0,
                threading.get_ident(),
            )
            for number, submission in enumerate(submissions)
        )
        with self._gate:
            if self._closed:
                raise DeviceError(f"The {self._name} is closed.", "Load the model again.")
            self._inbox.put(jobs)
        return [list(job.streams) for job in jobs]

    def close(self) -> None:
        """Cancel what is running and free the native memory. Safe to call twice.

        In a fork of the process that loaded the model, it stays as it is.
        """
        if not self._home.is_here:
            return
        with self._gate:
            self._closed = True
        self._inbox.put(None)
        self._interrupt_unwanted()
        self._thread.join()

    def require_room(self, prompt: int, max_tokens: int, count: int = 1) -> None:
        """Refuse what can never be decoded.

        Args:
            prompt: Tokens of the prompt.
            max_tokens: The most tokens that may follow it.
            count: How many sequences continue it.

        Raises:
            ContextOverflowError: The prompt and the tokens asked for can never fit.
            InputError: There is no prompt, or no token is asked for.
        """
        stepper = self._stepper
        if prompt < 1 or max_tokens < 1:
            raise InputError(
                f"The {self._name} needs a prompt and room for a token, found {prompt} "
                f"prompt tokens and room for {max_tokens}.",
                "Pass a prompt and at least one token.",
            )
        if count > stepper.rows:
            raise ContextOverflowError(
                f"{count} sequences at once were asked of the {self._name}, which was loaded for "
                f"{stepper.rows}.",
                f"Ask for at most {stepper.rows}, or load it with more sequences.",
            )
        cells = prompt + count * max_tokens
        alone = prompt + max_tokens > stepper.row_capacity
        if alone or cells > stepper.capacity:
            room = stepper.row_capacity if alone else stepper.capacity
            times = f"{count} x " if count > 1 else ""
            raise ContextOverflowError(
                f"The context of the {self._name} holds {room} tokens, found a prompt of {prompt} "
                f"and up to {times}{max_tokens} new ones ({cells} in all).",
                self._overflow_cure,
            )

    def together(self, prompt: int, max_tokens: int) -> int:
        """How many sequences that continue a prompt it decodes at once; at least 1.

        Args:
            prompt: Tokens of the prompt.
            max_tokens: The most tokens of each sequence.
        """
        fitting = (self._stepper.capacity - prompt) // max(1, max_tokens)
        return max(1, min(self._stepper.rows, fitting))

    def _interrupt_unwanted(self) -> None:
        """Stop the native call under way if nobody waits for it. Safe from any thread."""
        if not self._home.is_here:
            return  # a fork may have copied the gate while it was held
        with self._gate:
            if self._closed or all(stream.cancelled.is_set() for stream in self._served):
                self._stepper.interrupt()

    # The loop. Everything below runs on the engine's own thread.

    def _run(self) -> None:
        failure: AlignProError = CancelledError()
        try:
            while self._take_inbox():
                self._sweep_cancelled()
                self._admit_next()
                # Whom an interrupted call was for is cancelled, and leaves in the next turn.
                with suppress(CallInterruptedError):
                    # A long prompt takes turns with the sequences that are being decoded.
                    if self._filling is not None:
                        self._fill(*self._filling)
                    if self._live:
                        self._step()
        except AlignProError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - native engines share no base; readers get it
            failure = DeviceError(
                f"The {self._name} failed ({type(error).__name__}: {error}).",
                "Load it again, and run `alignpro-lite doctor`.",
            )
        finally:
            self._shut(failure)

    @contextmanager
    def _serving(self, streams: Sequence[Stream[S]], rows: Sequence[int]) -> Iterator[None]:
        """A native call that appends to rows; it is stopped once none of these streams wants it."""
        with self._gate:
            self._served = tuple(streams)
            self._stepper.resume()
            self._interrupt_unwanted()
        try:
            yield
        except CallInterruptedError:
            self._rows.restore(rows)
            raise

    def _shut(self, failure: AlignProError) -> None:
        """Tell every reader that nothing more will come, then free the context."""
        with self._gate:
            self._closed = True
            self.failure = failure
        while not self._inbox.empty():
            self._let_wait(self._inbox.get() or ())
        for live in self._live:
            self._end(live.stream, failure)
        for job in self._pending_jobs():
            for stream in job.streams:
                self._end(stream, failure)
        self._stepper.close()

    def _pending_jobs(self) -> list[_Job[S]]:
        """Jobs whose sequences have not started."""
        return [*self._waiting, *([self._filling[0]] if self._filling else [])]

    def _take_inbox(self) -> bool:
        """Move new jobs to the waiting line; block while idle. False once closed."""
        idle = not self._live and not self._pending_jobs()
        while idle or not self._inbox.empty():
            jobs = self._inbox.get()
            if jobs is None:
                return False
            self._let_wait(jobs)
            idle = False
        return True

    def _let_wait(self, jobs: Sequence[_Job[S]]) -> None:
        for job in jobs:
            self._waiting.put(job.caller, job)

    def _admit_next(self) -> None:
        """Begin the prompt of the job whose turn it is, if rows and cells are free for it."""
        if self._filling is not None or not self._waiting:
            return
        job = self._waiting.first()
        if all(stream.ended for stream in job.streams):
            self._waiting.take()
            return
        if job.fresh or self._is_spoiled:
            self._rows.forget_idle()
            self._is_spoiled = False
        row = self._rows.make_room(job.prompt, len(job.streams), self._promised() + job.cells)
        if row is not None:
            self._rows.begin(row, job.prompt)
            self._filling = job, row
            self._waiting.take()

    def _promised(self) -> int:
        """Cells that live sequences hold or may still need; a shared prompt counts once."""
        prompts = {id(live.job): len(live.job.prompt) for live in self._live}
        return sum(prompts.values()) + sum(live.job.max_tokens for live in self._live)

    def _fill(self, job: _Job[S], row: int) -> None:
        """Compute one chunk of a prompt; after the last one, its sequences start."""
        if all(stream.ended for stream in job.streams):
            self._rows.release(row, keep=True)
            self._filling = None
            return
        done = self._rows.length(row)
        end = chunk_end(done, len(job.prompt), self._stepper.micro_batch)
        chunk = job.prompt[done:end]
        with self._serving(job.streams, [row]):
            self._stepper.prefill(row, chunk, done)
        self._rows.append(row, chunk)
        if end == len(job.prompt):
            self._start(job, row)
            self._filling = None

    def _start(self, job: _Job[S], first: int) -> None:
        """Share the computed prompt and draw the first token of every sequence."""
        wanted = [stream for stream in job.streams if not stream.ended]
        for number, stream in enumerate(wanted):
            row = first if number == 0 else self._rows.copy(first, job.prompt)
            live = _Live(job, stream, row, number > 0, _NOTHING, job.max_tokens)
            self._live.append(live)
            self._draw(live, 0)

    def _step(self) -> None:
        """Advance every live sequence by one token."""
        batch = list(self._live)
        rows = [live.row for live in batch]
        starts = [self._rows.length(row) for row in rows]
        with self._serving([live.stream for live in batch], rows):
            self._stepper.decode(rows, [live.pending for live in batch], starts)
        for output, live in enumerate(batch):
            self._rows.append(live.row, [live.pending])
            self._draw(live, output)

    def _draw(self, live: _Live[S], output: int) -> None:
        """Draw the next token of a sequence; one that has none leaves, and the others go on."""
        try:
            draw = self._stepper.draw(output, live.stream.sampler)
        except InputError as error:
            self._leave(live, error)
            return
        live.pending = draw.token
        self._deliver(live, draw)

    def _deliver(self, live: _Live[S], draw: Draw) -> None:
        if math.isnan(draw.log_prob):
            self._leave(live, self._not_numbers())
            self._is_spoiled = True
            return
        # Asked first: the reader that `put` wakes would compete for the interpreter.
        stops = self._stepper.is_stop(draw.token)
        live.stream.put(draw)
        live.left -= 1
        if stops:
            self._leave(live, "stop")
        elif live.left <= 0:
            self._leave(live, "length")

    def _sweep_cancelled(self) -> None:
        for live in [live for live in self._live if live.stream.cancelled.is_set()]:
            self._leave(live, "cancelled")
        for stream in [stream for job in self._pending_jobs() for stream in job.streams]:
            if stream.cancelled.is_set():
                self._end(stream, "cancelled")

    def _leave(self, live: _Live[S], reason: FinishReason | AlignProError) -> None:
        self._live.remove(live)
        self._rows.release(live.row, keep=not live.is_copy)
        self._end(live.stream, reason)

    def _not_numbers(self) -> ModelFileError:
        return ModelFileError(
            f"The {self._name} computed values that are not numbers: its weights are damaged, or "
            "too large for the device.",
            "Run `alignpro-lite models verify`, and get the model again, or pass --device cpu.",
        )

    def _end(self, stream: Stream[S], event: FinishReason | AlignProError) -> None:
        if not stream.ended:
            stream.ended = True
            self._stepper.release(stream.sampler)
            stream.put(event)


_running: weakref.WeakSet[Engine[Any]] = weakref.WeakSet()


@atexit.register
def _close_running() -> None:
    """End the loops before the interpreter exits: native code must not outlive what it calls."""
    for engine in list(_running):
        engine.close()
