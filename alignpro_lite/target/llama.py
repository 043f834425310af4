"""llama.cpp: a model, its tokens, and steps of decoding. The only import of llama_cpp."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from alignpro_lite.decoding.conversation import Run
from alignpro_lite.decoding.sampling import Draw, GivenTokens, Sampling, token_log_prob
from alignpro_lite.errors import DeviceError, InputError, MissingDependencyError, ModelFileError

MICRO_BATCH = 256
"""Prompt tokens computed between two looks at the cancel flags."""

SPIN_COUNT = 3000
"""How long llama.cpp's threads spin at a barrier before they sleep. By default they spin for
milliseconds: as soon as another program keeps one core busy, each of the hundreds of barriers a
token waits for a descheduled thread. Measured on 2 cores with one of them busy: 1 to 2 tok/s by
default, 33 with this; with both free, 137 and 139."""


@dataclass(frozen=True)
class TargetSettings:
    """How to load a target.

    Attributes:
        context: Tokens that all sequences together may hold.
        sequences: How many sequences are decoded together at most.
        n_gpu_layers: Layers on the GPU; 0 stays on the CPU.
        gpu: Index of the one GPU to use, None on the CPU.
        threads: CPU threads; llama.cpp's threads spin, so never more than cores.
    """

    context: int
    sequences: int
    n_gpu_layers: int
    gpu: int | None
    threads: int


@dataclass(frozen=True)
class SamplerChain:
    """A sampler chain of llama.cpp.

    Attributes:
        pointer: Its `struct llama_sampler`; whoever made it gives it back.
    """

    pointer: Any


Source: TypeAlias = SamplerChain | GivenTokens
"""Where the tokens of a sequence come from: drawn by llama.cpp, or given to be scored."""


def supports_gpu_offload() -> bool:
    """Whether the installed llama.cpp was built with a GPU backend."""
    return bool(_llama_cpp().llama_supports_gpu_offload())


class LlamaModel:
    """llama.cpp's model, vocabulary and context behind plain Python calls."""

    def __init__(self, path: Path, settings: TargetSettings) -> None:
        self.lib = _llama_cpp()
        self._log = _capture_log(self.lib)
        self.settings = settings
        self.model = self._load_model(path)
        # Threads may still tokenise while another one closes the target: the weights go with
        # the last reference to this object, the context goes when the engine ends.
        freeing = weakref.finalize(self, self.lib.llama_model_free, self.model)
        freeing.atexit = False  # a thread may still be decoding then
        self.vocab = self.lib.llama_model_get_vocab(self.model)
        self.n_vocab = int(self.lib.llama_vocab_n_tokens(self.vocab))
        self.context = self._new_context()
        self.memory = self.lib.llama_get_memory(self.context)

    def _load_model(self, path: Path) -> Any:
        params = self.lib.llama_model_default_params()
        params.n_gpu_layers = self.settings.n_gpu_layers
        if self.settings.gpu is not None:
            params.split_mode = self.lib.LLAMA_SPLIT_MODE_NONE
            params.main_gpu = self.settings.gpu
        params.load_mode = self.lib.LLAMA_LOAD_MODE_MMAP
        model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        if not model:
            raise ModelFileError(
                f"llama.cpp cannot open {path}: {self._last_complaint()}.",
                "Check it with `alignpro-lite models verify`, or upgrade llama-cpp-python "
                "if the model is newer than it.",
            )
        return model

    def _new_context(self) -> Any:
        settings = self.settings
        params = self.lib.llama_context_default_params()
        params.n_ctx = settings.context
        params.n_batch = params.n_ubatch = MICRO_BATCH
        params.n_seq_max = settings.sequences
        # One buffer for all sequences, so that a shared prefix is stored once.
        params.kv_unified = True
        # Logits are only ever wanted for one position a sequence.
        params.n_outputs_max = settings.sequences
        params.n_threads = params.n_threads_batch = settings.threads
        params.no_perf = True
        context = self.lib.llama_init_from_model(self.model, params)
        if not context:
            raise DeviceError(
                f"llama.cpp cannot make a context of {settings.context} tokens: "
                f"{self._last_complaint()}.",
                "Lower --ctx or --n-gpu-layers.",
            )
        return context

    def _last_complaint(self) -> str:
        return self._log[-1] if self._log else "it gave no reason"

    def free_context(self) -> None:
        """Give back the KV cache; the engine's thread calls it when its loop has ended."""
        self.lib.llama_free(self.context)

    def special_text(self, kind: str) -> str:
        """Text of the bos or eos token, empty if the model has none."""
        token = getattr(self.lib, f"llama_vocab_{kind}")(self.vocab)
        return self._text_of(token) if token >= 0 else ""

    def special_texts_in(self, text: str) -> list[str]:
        """Texts of the special tokens that llama.cpp recognises in a template's own text."""
        tokens = set(self.tokenize(text, special=True))
        plain = self.lib.LLAMA_TOKEN_ATTR_NORMAL | self.lib.LLAMA_TOKEN_ATTR_BYTE
        return [
            self._text_of(token)
            for token in tokens
            if not self.lib.llama_vocab_get_attr(self.vocab, token) & plain
        ]

    def _text_of(self, token: int) -> str:
        return bytes(self.lib.llama_vocab_get_text(self.vocab, token)).decode("utf-8")

    def tokenize_runs(self, runs: Sequence[Run]) -> list[int]:
        """Token ids of a rendered prompt; adds the bos token if the model wants one."""
        tokens = [token for run in runs for token in self.tokenize(run.text, special=run.special)]
        bos = int(self.lib.llama_vocab_bos(self.vocab))
        if self.lib.llama_vocab_get_add_bos(self.vocab) and bos >= 0 and tokens[:1] != [bos]:
            tokens.insert(0, bos)
        return tokens

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, no bos or eos added."""
        raw = text.encode("utf-8")
        size = len(raw) + 2  # no tokenizer makes more tokens than bytes, save a space prefix
        buffer = (self.lib.llama_token * size)()
        count = self.lib.llama_tokenize(self.vocab, raw, len(raw), buffer, size, False, special)
        if count < 0:
            raise InputError(
                f"llama.cpp cannot tokenise a text of {len(raw)} bytes.", "Shorten the prompt."
            )
        return list(buffer[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        buffer = ctypes.create_string_buffer(256)
        length = self.lib.llama_token_to_piece(self.vocab, token, buffer, 256, 0, False)
        return buffer.raw[: max(length, 0)]

    def is_stop(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return bool(self.lib.llama_vocab_is_eog(self.vocab, token))

    def free_sampler(self, sampler: Source) -> None:
        """Give back what `new_sampler` made; given tokens hold nothing."""
        if isinstance(sampler, SamplerChain):
            self.lib.llama_sampler_free(sampler.pointer)

    def new_sampler(self, sampling: Sampling) -> SamplerChain:
        """llama.cpp's sampler chain for one sequence; `free_sampler` gives it back."""
        lib = self.lib
        params = lib.llama_sampler_chain_default_params()
        params.no_perf = True
        chain = lib.llama_sampler_chain_init(params)
        parts = []
        if sampling.temperature == 0:
            parts.append(lib.llama_sampler_init_greedy())
        else:
            if sampling.top_k > 0:
                parts.append(lib.llama_sampler_init_top_k(sampling.top_k))
            if sampling.top_p < 1:
                parts.append(lib.llama_sampler_init_top_p(sampling.top_p, 1))
            if sampling.min_p > 0:
                parts.append(lib.llama_sampler_init_min_p(sampling.min_p, 1))
            parts.append(lib.llama_sampler_init_temp(sampling.temperature))
            parts.append(lib.llama_sampler_init_dist(sampling.seed))
        for part in parts:
            lib.llama_sampler_chain_add(chain, part)
        return SamplerChain(chain)


class LlamaStepper:
    """llama.cpp as the engine's loop sees it; called on the loop's thread only."""

    def __init__(self, native: LlamaModel) -> None:
        self._native = native
        self._lib = native.lib
        self._batch = self._lib.llama_batch_init(MICRO_BATCH, 0, 1)
        shape = (MICRO_BATCH,)
        self._token = np.ctypeslib.as_array(self._batch.token, shape)
        self._position = np.ctypeslib.as_array(self._batch.pos, shape)
        self._wanted = np.ctypeslib.as_array(self._batch.logits, shape)
        np.ctypeslib.as_array(self._batch.n_seq_id, shape)[:] = 1
        self._sequence = [self._batch.seq_id[i] for i in range(MICRO_BATCH)]

    @property
    def rows(self) -> int:
        """How many sequences are decoded together at most."""
        return self._native.settings.sequences

    @property
    def capacity(self) -> int:
        """Most tokens of all sequences; a shared prefix counts once."""
        # llama.cpp rounds a context up; what was asked for and planned is what holds.
        return self._native.settings.context

    @property
    def row_capacity(self) -> int:
        """Most tokens of a sequence."""
        return min(self.capacity, int(self._lib.llama_n_ctx_seq(self._native.context)))

    @property
    def micro_batch(self) -> int:
        """Most prompt tokens of one `prefill`."""
        # llama.cpp lowers its batch to the context and aborts the process above it.
        return int(self._lib.llama_n_batch(self._native.context))

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Append prompt tokens to a row; output 0 is the last one's."""
        count = len(tokens)
        self._token[:count] = tokens
        self._position[:count] = np.arange(start, start + count)
        self._wanted[:count] = 0
        self._wanted[count - 1] = 1
        for place in range(count):
            self._sequence[place][0] = row
        self._decode(count)
        self._outputs = [count - 1]

    def decode(self, rows: Sequence[int], tokens: Sequence[int], starts: Sequence[int]) -> None:
        """Append one token to each row; output i belongs to rows[i]."""
        count = len(rows)
        self._token[:count] = tokens
        self._position[:count] = starts
        self._wanted[:count] = 1
        for place, row in enumerate(rows):
            self._sequence[place][0] = row
        self._decode(count)
        self._outputs = list(range(count))

    def _decode(self, count: int) -> None:
        self._batch.n_tokens = count
        status = self._lib.llama_decode(self._native.context, self._batch)
        if status != 0:
            raise DeviceError(
                f"llama.cpp failed to decode {count} tokens (status {status}).",
                "Lower --ctx or --n-gpu-layers, and run `alignpro-lite doctor`.",
            )

    def draw(self, output: int, sampler: Source) -> Draw:
        """Draw a token from an output of the last `prefill` or `decode`."""
        place = self._outputs[output]
        context = self._native.context
        pointer = self._lib.llama_get_logits_ith(context, place)
        logits = np.ctypeslib.as_array(pointer, (self._native.n_vocab,))
        if isinstance(sampler, GivenTokens):
            return sampler.draw(logits)
        token = int(self._lib.llama_sampler_sample(sampler.pointer, context, place))
        return Draw(token, token_log_prob(logits, token))

    def is_stop(self, token: int) -> bool:
        """Whether a token ends the sequence."""
        return self._native.is_stop(token)

    def share(self, source: int, target: int, length: int) -> None:
        """Make an empty row hold the first tokens of another one, stored once."""
        self._lib.llama_memory_seq_cp(self._native.memory, source, target, 0, length)

    def trim(self, row: int, length: int) -> bool:
        """Forget the end of a row; False if the model can only forget all of it."""
        return bool(self._lib.llama_memory_seq_rm(self._native.memory, row, length, -1))

    def release(self, sampler: Source) -> None:
        """Give back a sampler."""
        self._native.free_sampler(sampler)

    def close(self) -> None:
        """Give back the batch and the context."""
        self._lib.llama_batch_free(self._batch)
        self._native.free_context()
        del self._native


def _llama_cpp() -> ModuleType:
    """Import llama_cpp on first use.

    Raises:
        MissingDependencyError: It is not installed or its library does not load.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order NVML counts in
    # GNU OpenMP reads it when it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN_COUNT))
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(
            f"The target needs llama-cpp-python, which does not load ({error}).",
            'Run `CMAKE_ARGS="-DGGML_NATIVE=OFF" pip install --force-reinstall llama-cpp-python`.',
        ) from error
    return llama_cpp


_complaints: list[str] = []
_log_callback: Any = None
_ERROR_LEVEL = 4
_KEPT_COMPLAINTS = 20


def _capture_log(lib: ModuleType) -> list[str]:
    """Keep llama.cpp off stderr, and keep its last complaints for error messages."""
    global _log_callback
    if _log_callback is None:

        def keep(level: int, text: bytes, _: object) -> None:
            line = text.decode("utf-8", errors="replace").strip()
            if level == _ERROR_LEVEL and line:
                _complaints.append(line)
                del _complaints[:-_KEPT_COMPLAINTS]

        _log_callback = lib.llama_log_callback(keep)
    # Each time: other users of the library in this process may have put theirs in its place.
    lib.llama_log_set(_log_callback, ctypes.c_void_p())
    return _complaints
