"""The prompter at run time: sample and score rewrites of a prompt.

Two kinds of weights can write rewrites: those of a bundle (`onnx_prompter`), and those of the
target itself (`own_weights`). They differ in how tokens are decoded; all else is here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.engine import (
    Engine,
    FinishReason,
    S,
    Stream,
    Submission,
    replayed_log_probs,
)
from alignpro_lite.decoding.reasoning import Reply
from alignpro_lite.decoding.sampling import Sampler, Sampling
from alignpro_lite.errors import AlignProError, ContextOverflowError
from alignpro_lite.prompter.profile import PrompterProfile
from alignpro_lite.prompter.template import RewriteTemplate


@dataclass(frozen=True)
class Rewrite:
    """One sampled or scored rewrite.

    Attributes:
        text: x', the prompt as the target gets it.
        output: What the prompter wrote.
        tokens: Its token ids, the stop token included.
        log_prob: log ρ_θ(x'|x), natural, at temperature 1, summed over `tokens`.
        log_proposal: Natural log of the probability under the filters it was drawn with.
        finish_reason: `stop` if it ended by itself, `length` if it was cut.
        reasoning: What the prompter thought before it wrote.
        thought_only: Whether its thought did not come to a rewrite.
    """

    text: str
    output: str
    tokens: tuple[int, ...]
    log_prob: float
    log_proposal: float
    finish_reason: FinishReason
    reasoning: str = ""
    thought_only: bool = False


class RewriteStream:
    """A rewrite being sampled; `result` waits for it, `cancel` stops it."""

    def __init__(self, prompter: Prompter, prompt: str, tokens: Stream[Any]) -> None:
        """A rewrite of a prompt; its tokens are drawn by a `Sampler`."""
        self._prompter = prompter
        self._prompt = prompt
        self._tokens = tokens

    def cancel(self) -> None:
        """Stop after the current token; safe from any thread."""
        self._tokens.cancel()

    def result(self) -> Rewrite:
        """Wait for the rewrite. If the wait is interrupted, the sampling stops.

        Raises:
            CancelledError: The prompter was closed meanwhile.
        """
        try:
            draws = list(self._tokens)
        finally:
            self._tokens.cancel()
        tokens = tuple(draw.token for draw in draws)
        written = self._prompter.split(tokens)
        return Rewrite(
            text=self._prompter.template.apply(self._prompt, written.text),
            output=written.text,
            tokens=tokens,
            log_prob=math.fsum(draw.log_prob for draw in draws),
            log_proposal=self._tokens.sampler.log_proposal,
            finish_reason=self._tokens.finish_reason or "cancelled",
            reasoning=written.reasoning,
            thought_only=written.thought_only,
        )


class Prompter(ABC):
    """A loaded prompter.

    Use it as a context manager, or call `close`, to free its memory.

    Attributes:
        profile: How it is asked.
    """

    profile: PrompterProfile

    @property
    @abstractmethod
    def sequences(self) -> int:
        """How many rewrites it samples together at most."""

    @property
    @abstractmethod
    def failure(self) -> AlignProError | None:
        """Why it writes no more rewrites; None while its engines run."""

    @abstractmethod
    def prompt_tokens(self, prompt: str, earlier: Sequence[Message] = ()) -> list[int]:
        """Token ids that ask the prompter for a rewrite of x; see `RewriteTemplate.messages`."""

    @abstractmethod
    def require_room(self, asked: Sequence[int]) -> None:
        """Refuse token ids behind which no rewrite fits.

        Raises:
            ContextOverflowError: The context is too small.
        """

    @abstractmethod
    def encode(self, output: str) -> list[int]:
        """Token ids of an output as the prompter would write it, stop token included."""

    @abstractmethod
    def split(self, tokens: Sequence[int]) -> Reply:
        """An output and what was thought before it, without special tokens."""

    @abstractmethod
    def submit(
        self, prompt: Sequence[int], samplers: Sequence[Sampler], max_tokens: int
    ) -> Sequence[Stream[Any]]:
        """Decode token ids with ρ_θ, one sequence a sampler; see `Engine.submit`."""

    @abstractmethod
    def score(
        self,
        prompt: str,
        outputs: Sequence[Sequence[int]],
        earlier: Sequence[Message] = (),
        cancellation: Cancellation | None = None,
    ) -> list[float]:
        """Score given outputs: log ρ_θ(output | x) each, natural, at temperature 1.

        Args:
            prompt: x.
            outputs: Token ids of each output, stop token included.
            earlier: The turns that were shown when the outputs were drawn.
            cancellation: Stops the scoring; what is returned then means nothing.

        Returns:
            One number an output, summed over its tokens.
        """

    @abstractmethod
    def reference_score(
        self,
        prompt: str,
        outputs: Sequence[Sequence[int]],
        earlier: Sequence[Message] = (),
        cancellation: Cancellation | None = None,
    ) -> list[float]:
        """Score given outputs with the reference: log ρ_sft(output | x) each; see `score`.

        Raises:
            BundleError: This prompter cannot be had without its adapter.
        """

    @abstractmethod
    def require_reference(self) -> None:
        """Refuse a prompter whose reference ρ_sft cannot be had.

        Raises:
            BundleError: Its adapter is merged into its weights.
        """

    @abstractmethod
    def close(self) -> None:
        """Cancel what is running and free the memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def template(self) -> RewriteTemplate:
        """What it is asked."""
        return self.profile.template

    def fitting(self, prompt: str, history: Sequence[Message]) -> tuple[Message, ...]:
        """The turns of a conversation that are shown beside its last prompt x.

        Of those that the template would show, the oldest are left out, each as a whole, until the
        request and a rewrite fit; x itself is never cut.
        """
        turns = self.template.shown(history)
        while turns and not self._has_room(prompt, turns):
            turns = turns[1:]
        return turns

    def _has_room(self, prompt: str, earlier: Sequence[Message]) -> bool:
        try:
            self.require_room(self.prompt_tokens(prompt, earlier))
        except ContextOverflowError:
            return False
        return True

    def start(
        self,
        prompt: str,
        count: int,
        sampling: Sampling,
        first: int = 0,
        earlier: Sequence[Message] = (),
    ) -> list[RewriteStream]:
        """Start sampling rewrites of a prompt, together, from one computed prefix.

        Args:
            prompt: x.
            count: How many; number i is drawn with the same random numbers whatever the count.
            sampling: How tokens are drawn.
            first: The number of the first rewrite.
            earlier: Turns before x that fit, see `fitting`.

        Raises:
            ContextOverflowError: The prompt does not fit.
        """
        samplers = [Sampler(sampling, number) for number in range(first, first + count)]
        asked = self.prompt_tokens(prompt, earlier)
        streams = self.submit(asked, samplers, self.profile.max_tokens)
        return [RewriteStream(self, prompt, stream) for stream in streams]

    def rewrite(
        self, prompt: str, count: int, sampling: Sampling, earlier: Sequence[Message] = ()
    ) -> list[Rewrite]:
        """Sample rewrites and wait for all of them; see `start`."""
        return results_of(self.start(prompt, count, sampling, earlier=earlier))

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of an output, without special tokens and without what was thought before it."""
        return self.split(tokens).text


def results_of(streams: Sequence[RewriteStream]) -> list[Rewrite]:
    """Wait for rewrites that are sampled together. If the wait is interrupted, all of them stop."""
    try:
        return [stream.result() for stream in streams]
    finally:
        for stream in streams:
            stream.cancel()


def started_together(
    engine: Engine[S], prompt: Sequence[int], samplers: Sequence[S], max_tokens: int
) -> list[Stream[S]]:
    """Sequences of one prompt, in as few batches as an engine has room for.

    Raises:
        ContextOverflowError: The prompt and one sequence do not fit.
    """
    size = engine.together(len(prompt), max_tokens)
    batches = [
        Submission(prompt, samplers[start : start + size], max_tokens)
        for start in range(0, len(samplers), size)
    ]
    return [stream for streams in engine.submit_together(batches) for stream in streams]


def read_scores(
    streams: Sequence[Stream[Any]],
    outputs: Sequence[Sequence[int]],
    cancellation: Cancellation | None,
) -> list[float]:
    """Log-probabilities of outputs that sequences replay; each stops behind its output."""
    if cancellation is not None:
        cancellation.enter(streams)
    return replayed_log_probs(streams, list(map(len, outputs)))
