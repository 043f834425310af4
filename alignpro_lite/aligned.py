"""`AlignedModel`: the prompter and the target as one model.

    x -> prompter -> x' -> target -> y

`stream` is the primitive, `run` reads it to the end. Both models decode in
their own engine loop, so many threads may call one AlignedModel.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import shorten

from alignpro_lite.chat import Message
from alignpro_lite.devices import DeviceRequest, Plan
from alignpro_lite.engine import FinishReason
from alignpro_lite.errors import InputError
from alignpro_lite.loading import (
    DEFAULT,
    load_planned_prompter,
    load_planned_target,
    locate,
    plan_for,
)
from alignpro_lite.prompter import OnnxPrompter, Rewrite, RewriteStream
from alignpro_lite.sampling import Sampling
from alignpro_lite.spans import Protected, compile_patterns, protect
from alignpro_lite.target import DEFAULT_SAMPLING, AnswerStream, LlamaTarget

_SHOWN_OF_A_SPAN = 60
"""Characters of a lost span that a reason shows."""


@dataclass(frozen=True)
class Request:
    """How to answer one prompt.

    Attributes:
        system: A system prompt for the target, or None for the model's own.
        history: Earlier turns of the conversation, as the target saw them.
        max_tokens: The most tokens of the answer.
        stop: Strings that end the answer.
        sampling: How the answer is drawn; its seed serves the rewrite too.
        rewrite_sampling: How the rewrite is drawn; None takes the bundle's own.
        protect: Regular expressions of text that a rewrite must keep, besides what `spans`
            protects anyway.
    """

    system: str | None = None
    history: tuple[Message, ...] = ()
    max_tokens: int = 512
    stop: tuple[str, ...] = ()
    sampling: Sampling = DEFAULT_SAMPLING
    rewrite_sampling: Sampling | None = None
    protect: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse patterns that cannot be used, before anything is loaded.

        Raises:
            InputError: Names the pattern.
        """
        compile_patterns(self.protect)

    def with_seed(self, seed: int) -> Request:
        """The same request with another seed."""
        return replace(self, sampling=replace(self.sampling, seed=seed))


@dataclass(frozen=True)
class Choice:
    """Which prompt goes to the target, and why.

    Attributes:
        prompt: x, the user's own, without `<keep>` markers.
        sent: What the target gets: x' or x unchanged.
        rewrite: The sampled rewrite, None if there was no prompter to ask.
        reason: Why it was used or not, one phrase.
    """

    prompt: str
    sent: str
    rewrite: Rewrite | None
    reason: str

    @property
    def changed(self) -> bool:
        """Whether the target gets something else than the user wrote."""
        return self.sent != self.prompt


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds from the start of the request."""

    rewrite: float
    first_token: float
    total: float


@dataclass(frozen=True)
class Result:
    """A finished answer.

    Attributes:
        choice: The prompt and its rewrite.
        answer: y, the target's text.
        finish_reason: `stop`, `length` (cut at max_tokens) or `cancelled`.
        answer_tokens: Tokens of the answer, the stop token included.
        timings: How long it took.
    """

    choice: Choice
    answer: str
    finish_reason: FinishReason
    answer_tokens: int
    timings: Timings


class AlignedStream:
    """An answer being made: iterate for pieces of text, then ask for `result`.

    `cancel` works from any thread, while the prompt is rewritten and while the
    answer is decoded. Leaving the iteration early stops the work too.
    """

    def __init__(self, model: AlignedModel, protected: Protected, request: Request) -> None:
        self._model = model
        self._protected = protected
        self._prompt = protected.prompt
        self._request = request
        self._cancelled = threading.Event()
        self._running: RewriteStream | AnswerStream | None = None
        self._begun = time.monotonic()
        self._pieces: list[str] = []
        self._marks: dict[str, float] = {}
        self._finish: FinishReason | None = None
        self._tokens = 0
        self._text = self._generate()
        self.choice: Choice | None = None
        """Known as soon as the rewrite is; None before."""

    def prepare(self) -> Choice:
        """Rewrite the prompt, without answering it yet; the second call changes nothing.

        Raises:
            ContextOverflowError: The prompt does not fit the prompter.
        """
        if self.choice is None:
            self.choice = self._choose()
            self._marks["rewrite"] = self._elapsed()
        return self.choice

    def keep_prompt(self, reason: str) -> None:
        """Send the prompt as the user wrote it, whatever the prompter made of it."""
        rewrite = self.choice.rewrite if self.choice else None
        self.choice = _unchanged(self._prompt, rewrite, reason)
        self._marks["rewrite"] = self._elapsed()

    def __iter__(self) -> Iterator[str]:
        """Pieces of the answer as they are decoded; going on is reading on, never a new answer."""
        return self._text

    def _generate(self) -> Generator[str]:
        choice = self.prepare()
        if self._cancelled.is_set():
            self._finish = "cancelled"
            return
        answer = self._model.answer(choice.sent, self._request)
        self._enter(answer)
        try:
            for piece in answer:
                self._marks.setdefault("first_token", self._elapsed())
                self._pieces.append(piece)
                yield piece
        finally:
            answer.cancel()
            self._finish = answer.finish_reason or "cancelled"
            self._tokens = answer.token_count
            self._marks["total"] = self._elapsed()

    def cancel(self) -> None:
        """Stop as soon as the step under way is done."""
        self._cancelled.set()
        if self._running is not None:
            self._running.cancel()

    def result(self) -> Result:
        """Read what is left of the answer and sum it up."""
        for _ in self._text:
            pass
        total = self._marks.get("total", self._elapsed())
        return Result(
            choice=self.choice or _unchanged(self._prompt, None, "cancelled"),
            answer="".join(self._pieces),
            finish_reason=self._finish or "cancelled",
            answer_tokens=self._tokens,
            timings=Timings(
                rewrite=self._marks.get("rewrite", total),
                first_token=self._marks.get("first_token", total),
                total=total,
            ),
        )

    def _choose(self) -> Choice:
        if self._cancelled.is_set():
            return _unchanged(self._prompt, None, "cancelled")
        started = self._model.start_rewrites(self._prompt, 1, self._request)
        if not started:
            return _unchanged(self._prompt, None, "no prompter is loaded")
        self._enter(started[0])
        return choose(self._protected, started[0].result())

    def _enter(self, stage: RewriteStream | AnswerStream) -> None:
        self._running = stage
        if self._cancelled.is_set():
            stage.cancel()

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun


def choose(protected: Protected, rewrite: Rewrite) -> Choice:
    """Use a rewrite that is whole and keeps every span; else the prompt goes out unchanged."""
    prompt = protected.prompt
    if rewrite.finish_reason == "cancelled":
        return _unchanged(prompt, rewrite, "cancelled")
    if rewrite.finish_reason == "length":
        return _unchanged(prompt, rewrite, "the rewrite rambled past its limit")
    if not rewrite.output.strip():
        return _unchanged(prompt, rewrite, "the rewrite was empty")
    if broken := protected.broken_by(rewrite.text):
        lost = shorten(broken[0].text, _SHOWN_OF_A_SPAN, placeholder="...")
        return _unchanged(prompt, rewrite, f"the rewrite did not keep {lost}")
    return Choice(prompt, rewrite.text, rewrite, "rewritten")


def _unchanged(prompt: str, rewrite: Rewrite | None, reason: str) -> Choice:
    return Choice(prompt, prompt, rewrite, reason)


class AlignedModel:
    """A prompter and a frozen target, loaded and ready.

    Use it as a context manager, or call `close`, to give the memory back.

    >>> with AlignedModel.load(target="model.gguf") as model:  # doctest: +SKIP
    ...     for piece in model.stream("How do I stay safe online?"):
    ...         print(piece, end="")
    """

    def __init__(self, target: LlamaTarget, prompter: OnnxPrompter | None, plan: Plan) -> None:
        self.target = target
        self.prompter = prompter
        self.plan = plan

    @classmethod
    def load(
        cls,
        target: str | Path = DEFAULT,
        prompter: str | Path | None = DEFAULT,
        *,
        devices: DeviceRequest = DeviceRequest(),
        cache: Path | None = None,
    ) -> AlignedModel:
        """Load both models, at the same time.

        Args:
            target: A GGUF file, a name of models.toml, or `default`.
            prompter: A bundle folder, a name of models.toml, `default`, or None
                to answer prompts as they are.
            devices: Where to run and how long a context.
            cache: Folder of pulled models; None for the platform's own.

        Raises:
            AlignProError: A model, a device or a dependency is missing or unusable.
        """
        located = locate(target, prompter, cache)
        plan = plan_for(located, devices)
        with ThreadPoolExecutor(max_workers=2) as pool:
            loading: tuple[Future[LlamaTarget], Future[OnnxPrompter | None]] = (
                pool.submit(load_planned_target, located, plan),
                pool.submit(load_planned_prompter, located, plan),
            )
        failures = [error for future in loading if (error := future.exception())]
        if not failures:
            return cls(loading[0].result(), loading[1].result(), plan)
        for future in loading:
            # What did load must not outlive the failure of the other one.
            if not future.exception() and (loaded := future.result()):
                loaded.close()
        raise failures[0]

    def __enter__(self) -> AlignedModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is running and give back the memory."""
        if self.prompter is not None:
            self.prompter.close()
        self.target.close()

    def rewrite(self, prompt: str, n: int = 1, request: Request = Request()) -> list[Rewrite]:
        """Sample rewrites of a prompt without answering it.

        Args:
            prompt: x.
            n: How many; rewrite i is the same whatever n is.
            request: The sampling settings.

        Raises:
            InputError: The prompt is empty or not text, or no prompter is loaded.
            ContextOverflowError: The prompt does not fit.
        """
        if self.prompter is None:
            raise InputError("No prompter is loaded.", "Load the model with a prompter.")
        bare = protect(prompt).prompt
        return [stream.result() for stream in self.start_rewrites(bare, n, request)]

    def stream(self, prompt: str, request: Request = Request()) -> AlignedStream:
        """Rewrite a prompt and answer it; iterate over what it returns.

        Raises:
            InputError: The prompt is empty or not text.
        """
        protected = protect(prompt, compile_patterns(request.protect))
        check_prompt(protected.prompt)
        return AlignedStream(self, protected, request)

    def run(self, prompt: str, request: Request = Request()) -> Result:
        """Rewrite a prompt, answer it, and wait for the whole answer."""
        return self.stream(prompt, request).result()

    def answer(self, prompt: str, request: Request) -> AnswerStream:
        """Answer a prompt as it is, with the history and settings of the request.

        Raises:
            InputError: The prompt is empty or not text.
            ContextOverflowError: The conversation and the answer do not fit.
        """
        check_prompt(prompt)
        if request.system:
            check_prompt(request.system)
        system = [Message("system", request.system)] if request.system else []
        (stream,) = self.target.answer(
            [*system, *request.history, Message("user", prompt)],
            max_tokens=request.max_tokens,
            sampling=request.sampling,
            stop=request.stop,
        )
        return stream

    def start_rewrites(self, prompt: str, n: int, request: Request) -> list[RewriteStream]:
        """Start sampling rewrites; an empty list if no prompter is loaded.

        Raises:
            InputError: The prompt is empty or not text.
            ContextOverflowError: The prompt does not fit.
        """
        check_prompt(prompt)
        if self.prompter is None:
            return []
        chosen = request.rewrite_sampling or self.prompter.bundle.sidecar.sampling
        return self.prompter.start(prompt, n, replace(chosen, seed=request.sampling.seed))


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that no model can read.

    Raises:
        InputError: It is empty or not text.
    """
    if not prompt.strip():
        raise InputError("A prompt needs text, found none.", "Pass it as an argument or on stdin.")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The prompt is not valid text: character {error.start} is no Unicode character.",
            "Convert it to UTF-8.",
        ) from error
