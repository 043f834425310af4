"""The prompter at run time: sample and score rewrites of a prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from alignpro_lite.bundle import Bundle
from alignpro_lite.engine import Engine, FinishReason, Stream
from alignpro_lite.errors import BundleError
from alignpro_lite.onnx_decoder import DecoderSettings, OnnxDecoder
from alignpro_lite.prompter_tokenizer import PrompterTokenizer
from alignpro_lite.sampling import GivenTokens, Sampler, Sampling, TokenSource


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
    """

    text: str
    output: str
    tokens: tuple[int, ...]
    log_prob: float
    log_proposal: float
    finish_reason: FinishReason


class RewriteStream:
    """A rewrite being sampled; `result` waits for it, `cancel` stops it."""

    def __init__(self, prompter: OnnxPrompter, prompt: str, tokens: Stream[TokenSource]) -> None:
        self._prompter = prompter
        self._prompt = prompt
        self._tokens = tokens

    def cancel(self) -> None:
        """Stop after the token under way; safe from any thread."""
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
        output = self._prompter.decode(tokens)
        return Rewrite(
            text=self._prompter.template.apply(self._prompt, output),
            output=output,
            tokens=tokens,
            log_prob=math.fsum(draw.log_prob for draw in draws),
            log_proposal=self._tokens.sampler.log_proposal,
            finish_reason=self._tokens.finish_reason or "cancelled",
        )


class OnnxPrompter:
    """A loaded prompter.

    Use it as a context manager, or call `close`, to give its memory back.
    """

    def __init__(self, bundle: Bundle, settings: DecoderSettings) -> None:
        """Load the graph and the tokenizer of a bundle.

        Raises:
            BundleError: The graph or the tokenizer cannot be read.
            DeviceError: CUDA was asked for and cannot be used.
            MissingDependencyError: onnxruntime is not installed.
        """
        self.bundle = bundle
        self.template = bundle.sidecar.template
        self._tokenizer = PrompterTokenizer(
            _load_tokenizer(bundle), bundle.sidecar.tokens, self.template
        )
        decoder = OnnxDecoder(bundle, settings)
        self.device = decoder.device
        self._engine: Engine[TokenSource] = Engine(
            decoder, "prompter", "Shorten the prompt, or pass --mode off to send it as it is."
        )

    def __enter__(self) -> OnnxPrompter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is running and give back the memory."""
        self._engine.close()

    def start(self, prompt: str, count: int, sampling: Sampling) -> list[RewriteStream]:
        """Start sampling rewrites of a prompt, together, from one computed prefix.

        Args:
            prompt: x.
            count: How many; number i is the same whatever the count.
            sampling: How tokens are drawn.

        Raises:
            ContextOverflowError: The prompt does not fit.
        """
        samplers = [Sampler(sampling, number) for number in range(count)]
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
        tokens = self.prompt_tokens(prompt)
        scores = []
        for output in outputs:
            (stream,) = self.submit(tokens, [GivenTokens(output)], len(output))
            scores.append(math.fsum(draw.log_prob for draw in stream))
        return scores

    def submit(
        self, prompt: Sequence[int], samplers: Sequence[TokenSource], max_tokens: int
    ) -> list[Stream[TokenSource]]:
        """Decode token ids through the engine, one sequence a sampler; see `Engine.submit`."""
        return self._engine.submit(prompt, samplers, max_tokens)

    def prompt_tokens(self, prompt: str) -> list[int]:
        """Token ids that ask the prompter for a rewrite of x."""
        return self._tokenizer.request(prompt)

    def encode(self, output: str) -> list[int]:
        """Token ids of an output as the prompter would write it, stop token included."""
        return self._tokenizer.encode(output)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of an output, special tokens left out."""
        return self._tokenizer.decode(tokens)


def _load_tokenizer(bundle: Bundle) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(bundle.tokenizer_file))
    except Exception as error:  # the library raises bare Exception on every malformed file
        raise BundleError(
            f"{bundle.tokenizer_file} is not a tokenizer ({error}).",
            "Make the bundle again with `alignpro-lite export prompter`.",
        ) from error
