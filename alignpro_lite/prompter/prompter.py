"""The prompter at run time: sample and score rewrites of a prompt."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import islice

from alignpro_lite.decoding.engine import Engine, FinishReason, Stream
from alignpro_lite.decoding.reasoning import Reply
from alignpro_lite.decoding.sampling import GivenTokens, Sampler, Sampling, TokenSource
from alignpro_lite.decoding.sandbox import keep_renderer, release_renderer
from alignpro_lite.decoding.tokenizer import read_tokenizer, tokenizer_errors
from alignpro_lite.errors import BundleError, DeviceError
from alignpro_lite.hardware.system import trim_heap
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE, Bundle
from alignpro_lite.prompter.decoder import DecoderSettings, OnnxDecoder, open_graph
from alignpro_lite.prompter.tokenizer import PrompterTokenizer

_OUTPUTS_SCORED_TOGETHER = 4
"""Each takes a row of the cache, 30 MB for the default prompter; more are hardly faster."""


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

    def __init__(self, prompter: OnnxPrompter, prompt: str, tokens: Stream[TokenSource]) -> None:
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


class OnnxPrompter:
    """A loaded prompter.

    Use it as a context manager, or call `close`, to free its memory.
    """

    def __init__(self, bundle: Bundle, settings: DecoderSettings, adapter: float = 1.0) -> None:
        """Load the graph and the tokenizer of a bundle.

        Args:
            bundle: What to load.
            settings: Sizes and devices.
            adapter: What the adapter is multiplied with, if it has a gate: 1 loads ρ_θ, 0 its
                reference ρ_sft.

        Raises:
            BundleError: The graph or the tokenizer cannot be read, or the adapter has no gate.
            DeviceError: CUDA was asked for and cannot be used.
            MissingDependencyError: onnxruntime is not installed.
        """
        if adapter != 1:
            require_reference(bundle)
        self.bundle = bundle
        self.template = bundle.sidecar.template
        tokenizer = read_tokenizer(bundle.tokenizer_file, PROMPTER_BUNDLE.cure)
        self._tokenizer = PrompterTokenizer(tokenizer, bundle.sidecar.tokens, self.template)
        self.device = settings.device
        self._settings = settings
        with ExitStack() as failing:
            keep_renderer()  # it starts while the weights are loaded
            failing.callback(release_renderer)
            self._session = open_graph(bundle, settings)
            self._engine = self._new_engine("prompter", adapter)
            failing.pop_all()
        self._reference: Engine[TokenSource] | None = None
        self._starting = threading.Lock()

    @property
    def sequences(self) -> int:
        """How many rewrites it samples together at most."""
        return self._settings.sequences

    def __enter__(self) -> OnnxPrompter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is running and free the memory."""
        with self._starting:
            for engine in (self._engine, self._reference):
                if engine is not None:
                    engine.close()
            if self._session is not None:
                release_renderer()
            self._session = None
            trim_heap()

    def _new_engine(self, name: str, adapter: float) -> Engine[TokenSource]:
        if self._session is None:
            raise DeviceError("The prompter is closed.", "Load the model again.")
        decoder = OnnxDecoder(self.bundle, self._settings, self._session, adapter)
        cure = "Shorten the prompt, or pass --mode off to send it as it is."
        return Engine(decoder, name, cure)

    def start(
        self, prompt: str, count: int, sampling: Sampling, first: int = 0
    ) -> list[RewriteStream]:
        """Start sampling rewrites of a prompt, together, from one computed prefix.

        Args:
            prompt: x.
            count: How many; number i is the same whatever the count.
            sampling: How tokens are drawn.
            first: The number of the first rewrite.

        Raises:
            ContextOverflowError: The prompt does not fit.
        """
        samplers = [Sampler(sampling, number) for number in range(first, first + count)]
        streams = self.submit(self.prompt_tokens(prompt), samplers, self.bundle.sidecar.max_tokens)
        return [RewriteStream(self, prompt, stream) for stream in streams]

    def rewrite(self, prompt: str, count: int, sampling: Sampling) -> list[Rewrite]:
        """Sample rewrites and wait for all of them; see `start`."""
        return [stream.result() for stream in self.start(prompt, count, sampling)]

    def score(self, prompt: str, outputs: Sequence[Sequence[int]]) -> list[float]:
        """Score given outputs: log ρ_θ(output | x) each, natural, at temperature 1.

        Args:
            prompt: x.
            outputs: Token ids of each output, stop token included.

        Returns:
            One number an output, summed over its tokens.
        """
        return self._scored(self._engine, prompt, outputs)

    def reference_score(self, prompt: str, outputs: Sequence[Sequence[int]]) -> list[float]:
        """Score given outputs with the reference: log ρ_sft(output | x) each; see `score`.

        ρ_sft is the same graph with its adapter switched off. It needs a cache of its own, which
        is allocated at the first call.

        Raises:
            BundleError: The adapter of this bundle is merged into its weights.
        """
        if self.bundle.sidecar.provenance.adapter is None:
            return self.score(prompt, outputs)
        require_reference(self.bundle)
        with self._starting:
            if self._reference is None:
                self._reference = self._new_engine("reference prompter", adapter=0.0)
        return self._scored(self._reference, prompt, outputs)

    def _scored(
        self, engine: Engine[TokenSource], prompt: str, outputs: Sequence[Sequence[int]]
    ) -> list[float]:
        tokens = self.prompt_tokens(prompt)
        scores: list[float] = []
        together = min(_OUTPUTS_SCORED_TOGETHER, self.sequences)
        for start in range(0, len(outputs), together):
            batch = outputs[start : start + together]
            samplers = [GivenTokens(output) for output in batch]
            streams = engine.submit(tokens, samplers, max(map(len, batch)))
            scores.extend(
                _score(stream, len(output)) for stream, output in zip(streams, batch, strict=True)
            )
        return scores

    def submit(
        self, prompt: Sequence[int], samplers: Sequence[TokenSource], max_tokens: int
    ) -> list[Stream[TokenSource]]:
        """Decode token ids through the engine, one sequence a sampler; see `Engine.submit`."""
        return self._engine.submit(prompt, samplers, max_tokens)

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Token ids that ask the prompter for a rewrite of x."""
        with self._tokenizer_errors():
            return self._tokenizer.request(prompt)

    def encode(self, output: str) -> list[int]:
        """Token ids of an output as the prompter would write it, stop token included."""
        with self._tokenizer_errors():
            return self._tokenizer.encode(output)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of an output, without special tokens and without what was thought before it."""
        return self.split(tokens).text

    def split(self, tokens: Sequence[int]) -> Reply:
        """An output and what was thought before it, without special tokens."""
        with self._tokenizer_errors():
            return self._tokenizer.split(tokens)

    def _tokenizer_errors(self) -> AbstractContextManager[None]:
        return tokenizer_errors(self.bundle.tokenizer_file, PROMPTER_BUNDLE.cure)


def require_reference(bundle: Bundle) -> None:
    """Refuse a bundle whose adapter cannot be switched off.

    Raises:
        BundleError: Its adapter is merged into its weights.
    """
    if bundle.sidecar.provenance.adapter is not None and bundle.sidecar.graph.gate is None:
        raise BundleError(
            f"{bundle.path} cannot score rewrites with its base: its adapter changes more than "
            "linear layers and is merged.",
            "Draw a single rewrite, or train an adapter of linear layers only.",
        )


def _score(stream: Stream[TokenSource], length: int) -> float:
    """Log-probability of the first `length` tokens of a sequence, which then stops."""
    try:
        return math.fsum(draw.log_prob for draw in islice(stream, length))
    finally:
        stream.cancel()
