"""The batched loop that every model runs in: one thread, one native context.

A caller submits a prompt with any number of sequences to sample from it and
reads their tokens as they come. The loop computes the shared prompt once,
steps all live sequences of all callers together, lets each leave when it ends
or is cancelled, and keeps finished prompts cached for the next caller that
starts the same way. What a step means is up to the `Stepper`: llama.cpp's is in
`target/llama.py`, onnxruntime's in `prompter/decoder.py`.
"""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.errors import (
    AlignProError,
    CancelledError,
    ContextOverflowError,
    DeviceError,
    InputError,
)

FinishReason = Literal["stop", "length", "cancelled"]
S = TypeVar("S")
S_in = TypeVar("S_in", contravariant=True)

_FRESH_TOKENS = 2
"""The last tokens of a prompt are computed anew, and together, however much is cached: engines
multiply a single row by another kernel, and the same seed must give the same answer."""

_POLL_SECONDS = 0.2
"""A blocked reader wakes this often, because Windows delivers Ctrl-C only between waits."""


class Stepper(Protocol[S_in]):
    """A native context as the loop sees it. Only the loop's thread calls it.

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

    def draw(self, output: int, sampler: S_in) -> Draw:
        """Draw a token from an output of the last `prefill` or `decode`."""

    def is_stop(self, token: int) -> bool:
        """Whether a token ends the sequence."""

    def share(self, source: int, target: int, length: int) -> None:
        """Make an empty row hold the first `length` tokens of another one."""

    def trim(self, row: int, length: int) -> bool:
        """Forget all but the first `length` tokens; False if only clearing the row is possible."""

    def release(self, sampler: S_in) -> None:
        """Give back what belongs to a sampler."""

    def close(self) -> None:
        """Give back the native context."""


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
                event = self._events.get(timeout=_POLL_SECONDS)
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


@dataclass(frozen=True)
class Work(Generic[S]):
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
    """The last drawn token, not yet in the cache."""
    left: int
    """How many more tokens it may draw."""


@dataclass
class _Filling(Generic[S]):
    """The one job whose prompt is being computed, a chunk a turn of the loop."""

    job: _Job[S]
    row: int
    done: int
    """How many prompt tokens the row holds."""


@dataclass
class _Row:
    """What a row's cache holds."""

    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    last_used: int = 0


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
        self._overflow_cure = overflow_cure
        self._rows = [_Row() for _ in range(stepper.rows)]
        self._live: list[_Live[S]] = []
        self._filling: _Filling[S] | None = None
        self._waiting: deque[_Job[S]] = deque()
        self._clock = 0
        self._inbox: queue.SimpleQueue[tuple[_Job[S], ...] | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
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
        """Queue the sequences of one `Work`; see `submit_together`."""
        (streams,) = self.submit_together([Work(prompt, samplers, max_tokens)], fresh=fresh)
        return streams

    def submit_together(
        self, work: Sequence[Work[S]], *, fresh: bool = False
    ) -> list[list[Stream[S]]]:
        """Queue works, all or none of them, that begin at one moment.

        Which sequences are decoded side by side, and with it every rounding, then does not depend
        on how soon the loop wakes.

        Args:
            work: What to decode.
            fresh: Whether to forget cached prompts first. Engines round by what was computed
                before and lies beside; a number that is to depend on the prompt alone needs it.

        Returns:
            For each work one stream a sampler, in order.

        Raises:
            ContextOverflowError: A prompt and the tokens asked for can never fit.
            DeviceError: The engine is closed.
            InputError: There is no prompt, or no token is asked for.
        """
        for one in work:
            self.require_room(one)
        # Only the first one forgets: the others share what it computes.
        jobs = tuple(_job(one, fresh and number == 0) for number, one in enumerate(work))
        with self._gate:
            if self._closed:
                raise DeviceError(f"The {self._name} is closed.", "Load the model again.")
            self._inbox.put(jobs)
        return [list(job.streams) for job in jobs]

    def close(self) -> None:
        """Cancel what is running and give back the native memory. Safe to call twice."""
        self._inbox.put(None)
        self._thread.join()

    def require_room(self, work: Work[S]) -> None:
        """Make sure that a work can be decoded at all.

        Raises:
            ContextOverflowError: The prompt and the tokens asked for can never fit.
            InputError: There is no prompt, or no token is asked for.
        """
        stepper, prompt, count = self._stepper, len(work.prompt), len(work.samplers)
        if not work.prompt or work.max_tokens < 1:
            raise InputError(
                f"The {self._name} needs a prompt and room for a token, found {prompt} "
                f"prompt tokens and room for {work.max_tokens}.",
                "Pass a prompt and at least one token.",
            )
        if count > stepper.rows:
            raise ContextOverflowError(
                f"{count} sequences at once were asked of the {self._name}, which was loaded for "
                f"{stepper.rows}.",
                f"Ask for at most {stepper.rows}, or load it with more sequences.",
            )
        cells = prompt + count * work.max_tokens
        if prompt + work.max_tokens > stepper.row_capacity or cells > stepper.capacity:
            room = min(stepper.row_capacity, stepper.capacity)
            times = f"{count} x " if count > 1 else ""
            raise ContextOverflowError(
                f"The context of the {self._name} holds {room} tokens, found a prompt of {prompt} "
                f"and up to {times}{work.max_tokens} new ones ({cells} in all).",
                self._overflow_cure,
            )

    # The loop. Everything below runs on the engine's own thread.

    def _run(self) -> None:
        failure: AlignProError = CancelledError()
        try:
            while self._take_inbox():
                self._sweep_cancelled()
                self._admit_next()
                # A long prompt takes turns with the sequences that are being decoded.
                if self._filling is not None:
                    self._fill(self._filling)
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

    def _shut(self, failure: AlignProError) -> None:
        """Tell every reader that nothing more will come, then free the context."""
        with self._gate:
            self._closed = True
        while not self._inbox.empty():
            self._waiting.extend(self._inbox.get() or ())
        for live in self._live:
            self._end(live.stream, failure)
        for job in self._pending_jobs():
            for stream in job.streams:
                self._end(stream, failure)
        self._stepper.close()

    def _pending_jobs(self) -> list[_Job[S]]:
        """Jobs whose sequences have not started."""
        return [*self._waiting, *([self._filling.job] if self._filling else [])]

    def _take_inbox(self) -> bool:
        """Move new jobs to the waiting line; block while idle. False once closed."""
        idle = not self._live and not self._pending_jobs()
        while idle or not self._inbox.empty():
            jobs = self._inbox.get()
            if jobs is None:
                return False
            self._waiting.extend(jobs)
            idle = False
        return True

    def _admit_next(self) -> None:
        """Begin the prompt of the first waiting job if rows and cells are free for it."""
        if self._filling is not None or not self._waiting:
            return
        job = self._waiting[0]
        if all(stream.ended for stream in job.streams):
            self._waiting.popleft()
            return
        if job.fresh:
            for idle in self._idle_rows():
                self._clear(idle)
        row = self._make_room(job)
        if row is not None:
            self._filling = _Filling(job, row, self._reuse_prefix(row, job.prompt))
            self._waiting.popleft()

    def _make_room(self, job: _Job[S]) -> int | None:
        """Evict cached prompts, oldest first, until the job fits beside what is running.

        Returns:
            The row for the prompt, or None if the job has to wait.
        """
        idle = self._idle_rows()
        if len(idle) < len(job.streams):
            return None
        row = self._row_for(job.prompt, idle)
        others = [other for other in idle if other != row]
        for other in others:
            if self._cells_in_use(others) + job.cells <= self._stepper.capacity:
                break
            self._clear(other)
        fits = self._cells_in_use(others) + job.cells <= self._stepper.capacity
        return row if fits else None

    def _row_for(self, prompt: tuple[int, ...], idle: list[int]) -> int:
        """The idle row that this prompt continues, else the one unused for longest."""
        shared = {row: _common_prefix(self._rows[row].tokens, prompt) for row in idle}
        # Of several alike not a copy: the sequences of this job need those.
        best = max(idle, key=lambda row: (shared[row], self._rows[row].last_used))
        cached = self._rows[best].tokens
        # A row that shares little more than the template belongs to another conversation.
        continues = 2 * shared[best] >= len(cached)
        return best if continues else idle[0]

    def _reuse_prefix(self, row: int, prompt: tuple[int, ...]) -> int:
        """Keep or copy into a row what any row holds of a prompt; returns how many tokens."""
        rows = range(len(self._rows))
        source = max(rows, key=lambda other: _common_prefix(self._rows[other].tokens, prompt))
        known = _common_prefix(self._rows[source].tokens, prompt)
        start = min(known, max(len(prompt) - _FRESH_TOKENS, 0))
        if _common_prefix(self._rows[row].tokens, prompt) < start:
            self._clear(row)
            self._stepper.share(source, row, start)
        if not self._stepper.trim(row, start):
            start = 0
            self._stepper.trim(row, 0)
        self._rows[row].tokens = list(prompt[:start])
        self._rows[row].busy = True
        return start

    def _cells_in_use(self, idle: Sequence[int]) -> int:
        """Cells promised to live sequences plus cells that idle rows keep cached."""
        prompts = {id(live.job): len(live.job.prompt) for live in self._live}
        promised = sum(live.job.max_tokens for live in self._live)
        return sum(prompts.values()) + promised + sum(len(self._rows[row].tokens) for row in idle)

    def _fill(self, filling: _Filling[S]) -> None:
        """Compute one chunk of a prompt; after the last one, its sequences start."""
        job, row = filling.job, filling.row
        if all(stream.ended for stream in job.streams):
            self._rows[row].busy = False
            self._filling = None
            return
        end = _chunk_end(filling.done, len(job.prompt), self._stepper.micro_batch)
        chunk = job.prompt[filling.done : end]
        self._stepper.prefill(row, chunk, filling.done)
        self._rows[row].tokens.extend(chunk)
        filling.done = end
        if end == len(job.prompt):
            self._start(job, row)
            self._filling = None

    def _start(self, job: _Job[S], first: int) -> None:
        """Share the computed prompt and draw the first token of every sequence."""
        wanted = [stream for stream in job.streams if not stream.ended]
        for number, stream in enumerate(wanted):
            row = first if number == 0 else self._copy_of(first, job.prompt)
            draw = self._stepper.draw(0, stream.sampler)
            live = _Live(job, stream, row, number > 0, draw.token, job.max_tokens)
            self._live.append(live)
            self._deliver(live, draw)

    def _copy_of(self, source: int, prompt: tuple[int, ...]) -> int:
        row = self._idle_rows()[0]
        self._clear(row)
        self._stepper.share(source, row, len(prompt))
        self._rows[row].tokens = list(prompt)
        self._rows[row].busy = True
        return row

    def _step(self) -> None:
        """Advance every live sequence by one token."""
        batch = list(self._live)
        rows = [live.row for live in batch]
        starts = [len(self._rows[row].tokens) for row in rows]
        self._stepper.decode(rows, [live.pending for live in batch], starts)
        for output, live in enumerate(batch):
            self._rows[live.row].tokens.append(live.pending)
            draw = self._stepper.draw(output, live.stream.sampler)
            live.pending = draw.token
            self._deliver(live, draw)

    def _deliver(self, live: _Live[S], draw: Draw) -> None:
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

    def _leave(self, live: _Live[S], reason: FinishReason) -> None:
        self._live.remove(live)
        self._clock += 1
        self._rows[live.row].busy = False
        self._rows[live.row].last_used = 0 if live.is_copy else self._clock
        self._end(live.stream, reason)

    def _end(self, stream: Stream[S], event: FinishReason | AlignProError) -> None:
        if not stream.ended:
            stream.ended = True
            self._stepper.release(stream.sampler)
            stream.put(event)

    def _idle_rows(self) -> list[int]:
        """Rows that nobody decodes in: copies first, then empty ones, then the longest unused.

        An empty row may be one that has no memory yet, so a copy that ended goes before it.
        """
        idle = [row for row, state in enumerate(self._rows) if not state.busy]
        rows = self._rows
        return sorted(idle, key=lambda row: (rows[row].last_used, not rows[row].tokens))

    def _clear(self, row: int) -> None:
        self._stepper.trim(row, 0)
        self._rows[row].tokens = []


_running: weakref.WeakSet[Engine[Any]] = weakref.WeakSet()


@atexit.register
def _close_running() -> None:
    """End the loops before the interpreter goes: native code must not outlive what it calls."""
    for engine in list(_running):
        engine.close()


def _job(work: Work[S], fresh: bool) -> _Job[S]:
    streams = tuple(Stream(sampler) for sampler in work.samplers)
    return _Job(tuple(work.prompt), streams, work.max_tokens, fresh)


def _chunk_end(start: int, end: int, size: int) -> int:
    """Where the next chunk of at most `size` ends, leaving the last one _FRESH_TOKENS or more."""
    stop = min(start + size, end)
    short = 0 < end - stop < _FRESH_TOKENS and size > _FRESH_TOKENS
    return end - _FRESH_TOKENS if short else stop


def _common_prefix(cached: Sequence[int], prompt: Sequence[int]) -> int:
    """How many leading tokens two sequences share."""
    length = 0
    for ours, theirs in zip(cached, prompt, strict=False):
        if ours != theirs:
            break
        length += 1
    return length
