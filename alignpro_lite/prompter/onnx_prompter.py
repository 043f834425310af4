"""A prompter of its own weights: those of a bundle, decoded in onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack

from alignpro_lite.decoding.cancellation import Cancellation, LoadWatch
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.engine import Engine, Stream
from alignpro_lite.decoding.reasoning import Reply
from alignpro_lite.decoding.sampling import GivenTokens, TokenSource
from alignpro_lite.decoding.sandbox import keep_renderer, release_renderer
from alignpro_lite.decoding.tokenizer import read_tokenizer, tokenizer_errors
from alignpro_lite.errors import AlignProError, BundleError, DeviceError
from alignpro_lite.hardware.system import trim_heap
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE, Bundle
from alignpro_lite.prompter.decoder import DecoderSettings, OnnxDecoder, open_graph
from alignpro_lite.prompter.prompter import Prompter, read_scores, started_together
from alignpro_lite.prompter.tokenizer import PrompterTokenizer

_OUTPUTS_SCORED_TOGETHER = 4
"""Each takes a row of the cache, 30 MB for the default prompter; more are hardly faster."""


class OnnxPrompter(Prompter):
    """A bundle, loaded."""

    def __init__(
        self,
        bundle: Bundle,
        settings: DecoderSettings,
        adapter: float = 1.0,
        watch: LoadWatch | None = None,
    ) -> None:
        """Load the graph and the tokenizer of a bundle.

        Args:
            bundle: What to load.
            settings: Sizes and devices.
            adapter: What the adapter is multiplied with, if it has a gate: 1 loads ρ_θ, 0 its
                reference ρ_sft.
            watch: Told when the graph is loaded.

        Raises:
            BundleError: The graph or the tokenizer cannot be read, or the adapter has no gate.
            DeviceError: CUDA was asked for and cannot be used.
            MissingDependencyError: onnxruntime is not installed.
            CancelledError: The watcher has cancelled it.
        """
        self.bundle, self.profile = bundle, bundle.profile
        if adapter != 1:
            self.require_reference()
        tokenizer = read_tokenizer(bundle.tokenizer_file, PROMPTER_BUNDLE.cure)
        self._tokenizer = PrompterTokenizer(tokenizer, bundle.sidecar.tokens, self.template)
        self.device = settings.device
        self._settings = settings
        with ExitStack() as failing:
            keep_renderer()  # it starts while the weights are loaded
            failing.callback(release_renderer)
            self._session = open_graph(bundle, settings, watch)
            self._engine = self._new_engine("prompter", adapter)
            failing.pop_all()
        self._reference: Engine[TokenSource] | None = None
        self._starting = threading.Lock()

    @property
    def sequences(self) -> int:
        """How many rewrites it samples together at most."""
        return self._settings.sequences

    @property
    def failure(self) -> AlignProError | None:
        """Why it writes no more rewrites; None while its engines run."""
        reference = None if self._reference is None else self._reference.failure
        return self._engine.failure or reference

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

    def score(
        self,
        prompt: str,
        outputs: Sequence[Sequence[int]],
        earlier: Sequence[Message] = (),
        cancellation: Cancellation | None = None,
    ) -> list[float]:
        """Score given outputs with ρ_θ; see `Prompter.score`."""
        asked = self.prompt_tokens(prompt, earlier)
        return _scored(self._engine, asked, self._batches(outputs), cancellation)

    def reference_score(
        self,
        prompt: str,
        outputs: Sequence[Sequence[int]],
        earlier: Sequence[Message] = (),
        cancellation: Cancellation | None = None,
    ) -> list[float]:
        """Score given outputs with ρ_sft; see `Prompter.reference_score`.

        ρ_sft is the same graph with its adapter switched off. It needs a cache of its own, which
        is allocated at the first call.

        Raises:
            BundleError: The adapter of this bundle is merged into its weights.
        """
        if not self.profile.is_trained:
            return self.score(prompt, outputs, earlier, cancellation)
        self.require_reference()
        with self._starting:
            if self._reference is None:
                self._reference = self._new_engine("reference prompter", adapter=0.0)
        asked = self.prompt_tokens(prompt, earlier)
        return _scored(self._reference, asked, self._batches(outputs), cancellation)

    def require_reference(self) -> None:
        """Refuse a bundle whose adapter cannot be switched off.

        Raises:
            BundleError: Its adapter is merged into its weights.
        """
        if not self.profile.has_reference:
            raise BundleError(
                f"{self.bundle.path} cannot score rewrites with its base: its adapter changes more "
                "than linear layers and is merged.",
                "Draw a single rewrite, or train an adapter of linear layers only.",
            )

    def _batches(self, outputs: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
        """Outputs in the portions in which they are scored."""
        together = min(_OUTPUTS_SCORED_TOGETHER, self.sequences)
        for start in range(0, len(outputs), together):
            yield outputs[start : start + together]

    def require_room(self, asked: Sequence[int]) -> None:
        """Refuse token ids behind which no rewrite fits; see `Prompter.require_room`."""
        self._engine.require_room(len(asked), self.profile.max_tokens)

    def submit(
        self, prompt: Sequence[int], samplers: Sequence[TokenSource], max_tokens: int
    ) -> list[Stream[TokenSource]]:
        """Decode token ids, as many sequences at once as fit; see `Prompter.submit`."""
        return started_together(self._engine, prompt, samplers, max_tokens)

    def prompt_tokens(self, prompt: str, earlier: Sequence[Message] = ()) -> list[int]:
        """Token ids that ask the prompter for a rewrite of x; see `Prompter.prompt_tokens`."""
        with self._tokenizer_errors():
            return self._tokenizer.request(prompt, earlier)

    def encode(self, output: str) -> list[int]:
        """Token ids of an output as the prompter would write it, stop token included."""
        with self._tokenizer_errors():
            return self._tokenizer.encode(output)

    def split(self, tokens: Sequence[int]) -> Reply:
        """An output and what was thought before it, without special tokens."""
        with self._tokenizer_errors():
            return self._tokenizer.split(tokens)

    def _tokenizer_errors(self) -> AbstractContextManager[None]:
        return tokenizer_errors(self.bundle.tokenizer_file, PROMPTER_BUNDLE.cure)


def _scored(
    engine: Engine[TokenSource],
    asked: Sequence[int],
    batches: Iterable[Sequence[Sequence[int]]],
    cancellation: Cancellation | None,
) -> list[float]:
    scores: list[float] = []
    for batch in batches:
        samplers = [GivenTokens(output) for output in batch]
        streams = engine.submit(asked, samplers, max(map(len, batch)))
        scores.extend(read_scores(streams, batch, cancellation))
    return scores
