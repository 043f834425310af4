"""The target's model in llama.cpp: how it is loaded, sampled and stepped."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from alignpro_lite.decoding.backends import offload_devices
from alignpro_lite.decoding.cancellation import LoadWatch
from alignpro_lite.decoding.guide import Guide
from alignpro_lite.decoding.llamacpp import LlamaContext, LlamaModel, llama_cpp
from alignpro_lite.decoding.penalties import NO_PENALTIES, Penalties
from alignpro_lite.decoding.sampling import (
    Draw,
    Sampling,
    TokenSource,
    most_likely,
    token_log_prob,
)
from alignpro_lite.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MICRO_BATCH = 256
"""Prompt tokens of one call. Cancelling does not wait for its end, but other sequences do."""


@dataclass(frozen=True)
class TargetSettings:
    """How to load a target.

    Attributes:
        context: Tokens that all sequences together may hold; a shared prefix counts once.
        sequences: How many sequences are decoded together at most.
        n_gpu_layers: Layers on the GPU; 0 stays on the CPU.
        gpu: llama.cpp's name of the one GPU to use, None for the CPU alone.
        threads: CPU threads; llama.cpp's threads spin, so never more than cores.
        longest: Tokens that one sequence may hold, None for as many as all together.
        mapped: Whether the weights stay in the file, where they cannot be put into the order that
            is fastest on the CPU; otherwise they are read into memory.
    """

    context: int
    sequences: int
    n_gpu_layers: int
    gpu: str | None
    threads: int
    longest: int | None = None
    mapped: bool = False


@dataclass(frozen=True)
class SamplerChain:
    """A sampler chain of llama.cpp.

    Attributes:
        pointer: Its `struct llama_sampler`; whoever made it frees it.
        guide: Which tokens may come next; None for all.
        alternatives: How many of the most likely tokens each draw lists.
    """

    pointer: Any
    guide: Guide | None = None
    alternatives: int = 0

    @contextmanager
    def restricted(self, logits: NDArray[np.float32]) -> Iterator[None]:
        """Within the block, tokens that may not come next are impossible.

        Args:
            logits: llama.cpp's own, which other sequences of the same prompt need as they were.

        Raises:
            InputError: See `Guide.allowed`.
        """
        if self.guide is None:
            yield
            return
        kept, logits[:] = logits.copy(), np.where(self.guide.allowed(), logits, -np.inf)
        yield
        logits[:] = kept

    def accept(self, token: int) -> None:
        """Go on behind a drawn token.

        Raises:
            InputError: See `Guide.accept`.
        """
        if self.guide is not None:
            self.guide.accept(token)


@dataclass(frozen=True)
class Drawing:
    """How the tokens of one sequence are drawn by llama.cpp.

    Attributes:
        sampling: The filters, and the seed of the sequence.
        penalties: What changes the logits first.
        longest: How many tokens it may get; all of them count for the penalties.
        guide: Which tokens may come next, at the beginning of the sequence; None for all.
        alternatives: How many of the most likely tokens each draw lists.
        begun: The tokens that it begins with.
    """

    sampling: Sampling
    penalties: Penalties = NO_PENALTIES
    longest: int = 0
    guide: Guide | None = None
    alternatives: int = 0
    begun: tuple[int, ...] = ()


TargetSampler: TypeAlias = SamplerChain | TokenSource
"""Where the tokens of a sequence come from: drawn by llama.cpp, or chosen in Python, where they are
given to be scored or are a prompter's, whose probability under its filters must be known."""


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA adapter for one context.

    Attributes:
        path: A GGUF file that holds nothing else.
        scale: What its update is multiplied by; 1 as it was trained.
    """

    path: Path
    scale: float = 1.0


def open_model(path: Path, settings: TargetSettings, watch: LoadWatch | None = None) -> LlamaModel:
    """Load the weights of a target, before the eyes of a watcher.

    Raises:
        CancelledError: The watcher has cancelled it.
        MissingDependencyError: llama-cpp-python is not installed.
        ModelFileError: llama.cpp cannot open the file.
        DeviceError: The GPU is gone, or there is not enough memory.
    """
    lib = llama_cpp()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = settings.n_gpu_layers
    devices = offload_devices(settings.gpu)
    params.devices = ctypes.addressof(devices)
    # AUTO maps the file, unless the GPU cannot compute with mapped memory.
    params.load_mode = lib.LLAMA_LOAD_MODE_AUTO if settings.mapped else lib.LLAMA_LOAD_MODE_NONE
    params.use_extra_bufts = not settings.mapped
    return LlamaModel(path, params, watch)


def new_sampler(model: LlamaModel, drawing: Drawing) -> SamplerChain:
    """llama.cpp's sampler chain for one sequence; `free_sampler` frees it.

    Raises:
        InputError: The sequence may not begin as it does, or a bias is for a token that the model
            does not have.
    """
    for token, _ in drawing.penalties.bias:
        if not 0 <= token < model.n_vocab:
            raise InputError(
                f"A bias needs a token from 0 to {model.n_vocab - 1}, found {token}.",
                "Pass token ids of this target.",
            )
    lib = model.lib
    params = lib.llama_sampler_chain_default_params()
    params.no_perf = True
    chain = SamplerChain(lib.llama_sampler_chain_init(params), drawing.guide, drawing.alternatives)
    for part in (*_penalty_samplers(model, drawing), *_draw_samplers(model, drawing.sampling)):
        lib.llama_sampler_chain_add(chain.pointer, part)
    try:
        for token in drawing.begun:
            lib.llama_sampler_accept(chain.pointer, token)
            chain.accept(token)
    except InputError:
        free_sampler(model, chain)
        raise
    return chain


def _penalty_samplers(model: LlamaModel, drawing: Drawing) -> list[Any]:
    """The samplers of llama.cpp that change logits, in their order."""
    lib, penalties = model.lib, drawing.penalties
    parts = []
    if penalties.bias:
        biases = (lib.llama_logit_bias * len(penalties.bias))(*penalties.bias)
        parts.append(lib.llama_sampler_init_logit_bias(model.n_vocab, len(biases), biases))
    if penalties.counts:
        amounts = penalties.repeat, penalties.frequency, penalties.presence
        parts.append(lib.llama_sampler_init_penalties(model.n_vocab, drawing.longest, *amounts))
    return parts


def _draw_samplers(model: LlamaModel, sampling: Sampling) -> list[Any]:
    """The samplers of llama.cpp that choose a token, in their order."""
    lib = model.lib
    if sampling.temperature == 0:
        return [lib.llama_sampler_init_greedy()]
    parts = []
    if sampling.top_k > 0:
        parts.append(lib.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1:
        parts.append(lib.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        parts.append(lib.llama_sampler_init_min_p(sampling.min_p, 1))
    parts.append(lib.llama_sampler_init_temp(sampling.temperature))
    parts.append(lib.llama_sampler_init_dist(sampling.seed))
    return parts


def free_sampler(model: LlamaModel, sampler: TargetSampler) -> None:
    """Free what `new_sampler` made; samplers in Python hold nothing."""
    if isinstance(sampler, SamplerChain):
        model.lib.llama_sampler_free(sampler.pointer)


class LlamaStepper:
    """llama.cpp as the engine's loop sees it; called on the loop's thread only."""

    def __init__(
        self, model: LlamaModel, settings: TargetSettings, adapter: LoraAdapter | None = None
    ) -> None:
        """Make an empty context.

        Raises:
            DeviceError: There is not enough memory for it.
            ModelFileError: llama.cpp cannot use the adapter with this model.
        """
        self._model = model
        self._lib = model.lib
        self._settings = settings
        params = self._lib.llama_context_default_params()
        params.n_ctx = settings.context
        params.n_batch = params.n_ubatch = MICRO_BATCH
        params.n_seq_max = settings.sequences
        # One buffer for all sequences, so that a shared prefix is stored once.
        params.kv_unified = True
        # Logits are only ever wanted for one position a sequence.
        params.n_outputs_max = settings.sequences
        params.n_threads = params.n_threads_batch = settings.threads
        params.no_perf = True
        self._context = LlamaContext(model, params)
        if adapter is not None:
            self._context.adapt(adapter.path, adapter.scale)
        self._outputs: Sequence[int] = ()

    @property
    def rows(self) -> int:
        """How many sequences are decoded together at most."""
        return self._settings.sequences

    @property
    def capacity(self) -> int:
        """Most tokens of all sequences; a shared prefix counts once."""
        # llama.cpp rounds a context up; what was asked for and planned is what holds.
        return self._settings.context

    @property
    def row_capacity(self) -> int:
        """Most tokens of a sequence."""
        longest = self._settings.longest or self.capacity
        return min(longest, self.capacity, self._context.sequence_capacity)

    @property
    def micro_batch(self) -> int:
        """Most prompt tokens of one `prefill`."""
        return self._context.batch_size

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Append prompt tokens to a row; output 0 is the last one's."""
        count = len(tokens)
        self._outputs = [count - 1]
        self._context.decode(tokens, range(start, start + count), [row] * count, self._outputs)

    def decode(self, rows: Sequence[int], tokens: Sequence[int], starts: Sequence[int]) -> None:
        """Append one token to each row; output i belongs to rows[i]."""
        self._outputs = range(len(rows))
        self._context.decode(tokens, starts, rows, self._outputs)

    def interrupt(self) -> None:
        """Stop the `prefill` or `decode` under way, and all until `resume`; from any thread."""
        self._context.interrupt()

    def resume(self) -> None:
        """Let the next `prefill` or `decode` run."""
        self._context.resume()

    def draw(self, output: int, sampler: TargetSampler) -> Draw:
        """Draw a token from an output of the last `prefill` or `decode`.

        Raises:
            InputError: The constraint on this sequence cannot be kept; others are not affected.
        """
        place = self._outputs[output]
        logits = self._context.logits(place)
        if not isinstance(sampler, SamplerChain):
            return sampler.draw(logits)
        alternatives = most_likely(logits, sampler.alternatives)
        with sampler.restricted(logits):
            pointer = self._context.pointer
            token = int(self._lib.llama_sampler_sample(sampler.pointer, pointer, place))
        sampler.accept(token)
        return Draw(token, token_log_prob(logits, token), alternatives)

    def is_stop(self, token: int) -> bool:
        """Whether a token ends the sequence."""
        return self._model.is_stop(token)

    def share(self, source: int, target: int, length: int) -> None:
        """Make an empty row hold the first tokens of another one, stored once."""
        self._lib.llama_memory_seq_cp(self._context.memory, source, target, 0, length)

    def trim(self, row: int, length: int) -> bool:
        """Forget the end of a row; False if the model can only forget all of it."""
        return bool(self._lib.llama_memory_seq_rm(self._context.memory, row, length, -1))

    def release(self, sampler: TargetSampler) -> None:
        """Free a sampler."""
        free_sampler(self._model, sampler)

    def close(self) -> None:
        """Free the context, and the weights if nothing else uses them."""
        self._context.close()
        del self._model
