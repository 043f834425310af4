"""The frozen target: any GGUF that llama.cpp opens. The only import of llama_cpp."""

from __future__ import annotations

import ctypes
import math
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from alignpro_lite.chat import Message, Run, render, token_runs
from alignpro_lite.engine import Engine, FinishReason, Stream, Work
from alignpro_lite.errors import (
    AlignProError,
    DeviceError,
    InputError,
    MissingDependencyError,
    ModelFileError,
)
from alignpro_lite.gguf import GgufFile
from alignpro_lite.sampling import Draw, GivenTokens, Sampling, stream_seed, token_log_prob
from alignpro_lite.text import StopStrings, readable

if TYPE_CHECKING:
    from numpy.typing import NDArray

MICRO_BATCH = 256
"""Prompt tokens computed between two looks at the cancel flags."""

SPIN_COUNT = 3000
"""How long llama.cpp's threads spin at a barrier before they sleep. By default they spin for
milliseconds: as soon as another program keeps one core busy, each of the hundreds of barriers a
token waits for a descheduled thread. Measured on 2 cores with one of them busy: 1 to 2 tok/s by
default, 33 with this; with both free, 137 and 139."""

DEFAULT_SAMPLING = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
"""llama.cpp's own defaults for chat."""


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


@dataclass(frozen=True)
class Question:
    """A conversation and how it is to be answered.

    Attributes:
        messages: The conversation.
        max_tokens: The most tokens of each answer.
        sampling: How tokens are drawn.
        stop: Strings that end an answer and are not part of it.
        count: How many answers; number i has a random stream of its own.
        first: The number of the first one.
        begun: Token ids that every answer begins with; decoding goes on behind them.
    """

    messages: Sequence[Message]
    max_tokens: int
    sampling: Sampling = DEFAULT_SAMPLING
    stop: Sequence[str] = ()
    count: int = 1
    first: int = 0
    begun: tuple[int, ...] = ()


class AnswerStream:
    """The text of one answer, read once, as it is decoded."""

    def __init__(self, target: LlamaTarget, tokens: Stream[Source], question: Question) -> None:
        self._target = target
        self._tokens = tokens
        self._begun = question.begun
        self._stops = StopStrings(question.stop)
        self.tokens: list[int] = []
        self.log_prob = 0.0
        """Of the tokens decoded here, without those the answer began with."""

    @property
    def token_count(self) -> int:
        """Tokens of the answer so far, the stop token included."""
        return len(self.tokens)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why it ended: stop, length or cancelled; None while it runs."""
        return "stop" if self._stops.found else self._tokens.finish_reason

    def __iter__(self) -> Iterator[str]:
        """Yield pieces of text; leaving early stops the decoding."""
        try:
            yield from readable(self._pieces(), self._stops)
        finally:
            self._tokens.cancel()

    def cancel(self) -> None:
        """Stop after the token under way; safe from any thread."""
        self._tokens.cancel()

    def _pieces(self) -> Iterator[bytes]:
        for token in self._begun:
            self.tokens.append(token)
            yield self._target.piece(token)
        for draw in self._tokens:
            self.tokens.append(draw.token)
            self.log_prob += draw.log_prob
            yield self._target.piece(draw.token)


class LlamaTarget:
    """A loaded target. Its answers are decoded together, whoever asks for them.

    Use it as a context manager, or call `close`, to give its memory back.
    """

    def __init__(self, path: Path, file: GgufFile, settings: TargetSettings) -> None:
        """Load a model.

        Args:
            path: A GGUF file that generates text.
            file: Its header, already read and checked.
            settings: Sizes and devices.

        Raises:
            ModelFileError: llama.cpp cannot open the file.
            DeviceError: The memory or the GPU does not suffice.
        """
        self.file = file
        self._open: _NativeModel | None = _NativeModel(path, settings)
        self._engine: Engine[Source] = Engine(
            _LlamaStepper(self._native),
            "target",
            "Shorten the prompt, lower --max-tokens, or raise --ctx.",
        )
        self.path = path
        self.settings = settings

    def __enter__(self) -> LlamaTarget:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Cancel what is running and give back the memory."""
        self._engine.close()
        self._open = None

    @property
    def _native(self) -> _NativeModel:
        """The model; whoever holds it keeps it alive, also while another thread closes it."""
        if self._open is None:
            raise DeviceError("The target is closed.", "Load the model again.")
        return self._open

    def prompt_tokens(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation under the file's own chat template.

        Special tokens come from the template alone; a user's text is tokenised
        as plain text, whatever it contains.

        Raises:
            ModelFileError, InputError: See `chat.render`.
        """
        native = self._native
        special = {
            "bos_token": native.special_text("bos"),
            "eos_token": native.special_text("eos"),
        }
        segments = render(self.file.chat_template, messages, special)
        written = native.special_texts_in("".join(text for text, own in segments if own))
        return native.tokenize_runs(token_runs(segments, written))

    def answer(self, question: Question) -> list[AnswerStream]:
        """Start the answers to one question; they are decoded together."""
        (streams,) = self.answer_together([question])
        return streams

    def answer_together(
        self, questions: Sequence[Question], *, fresh: bool = False
    ) -> list[list[AnswerStream]]:
        """Start the answers to several questions at one moment; all are decoded together.

        Args:
            questions: What to answer.
            fresh: Whether to forget cached prompts first, so that the roundings of the answers
                depend on the questions alone; see `Engine.submit_together`.

        Returns:
            For each question one stream an answer.

        Raises:
            ContextOverflowError: A question and its answers can never fit. None is started.
        """
        works = []
        try:
            for question in questions:
                works.append(self._work(question))
            started = self._engine.submit_together(works, fresh=fresh)
        except AlignProError:
            for sampler in (sampler for work in works for sampler in work.samplers):
                self._native.free_sampler(sampler)  # the engine frees those it takes
            raise
        return [
            [AnswerStream(self, stream, question) for stream in streams]
            for question, streams in zip(questions, started, strict=True)
        ]

    def require_room(self, question: Question) -> None:
        """Make sure that a question can be answered in this context at all.

        Raises:
            ContextOverflowError: The conversation and its answers can never fit.
        """
        samplers: list[Source] = [GivenTokens([0])] * question.count  # only their number counts
        tokens = [*self.prompt_tokens(question.messages), *question.begun]
        self._engine.require_room(Work(tokens, samplers, _left(question)))

    def _work(self, question: Question) -> Work[Source]:
        prompt = [*self.prompt_tokens(question.messages), *question.begun]
        numbers = range(question.first, question.first + question.count)
        seeds = [stream_seed(question.sampling.seed, number) for number in numbers]
        samplers: list[Source] = [
            self._native.new_sampler(replace(question.sampling, seed=seed)) for seed in seeds
        ]
        return Work(prompt, samplers, _left(question))

    def choice_log_probs(
        self, messages: Sequence[Message], choices: Sequence[str]
    ) -> NDArray[np.float64]:
        """How likely the answer to a conversation begins with each of several texts.

        Args:
            messages: The conversation.
            choices: At most as many texts as the target has sequences; the first token of each
                one counts.

        Returns:
            Log-probabilities at temperature 1, natural, shape (choices,).

        Raises:
            ContextOverflowError: The conversation does not fit.
            InputError: A text is empty, or two begin with the same token.
        """
        native = self._native
        firsts = [native.tokenize(choice, special=False)[:1] for choice in choices]
        if not all(firsts) or len({token for (token,) in firsts}) < len(firsts):
            raise InputError(
                f"The replies {', '.join(map(repr, choices))} must begin with different tokens.",
                "Choose other words.",
            )
        prompt = self.prompt_tokens(messages)
        given: list[Source] = [GivenTokens(first) for first in firsts]
        streams = self._engine.submit(prompt, given, 1, fresh=True)
        return np.array([draw.log_prob for stream in streams for draw in stream])

    def score(
        self, messages: Sequence[Message], continuations: Sequence[Sequence[int]]
    ) -> list[float]:
        """Score given answers to one conversation; see `score_each`."""
        (scores,) = self.score_each([messages], continuations)
        return scores

    def score_each(
        self,
        conversations: Sequence[Sequence[Message]],
        continuations: Sequence[Sequence[int]],
    ) -> list[list[float]]:
        """Score answers to each of several conversations: log π_F(y|x), natural, at temperature 1.

        Batches of other sizes round differently, by about a thousandth of a nat a token; answers
        that were sampled afresh, as many together as are scored here, get what they were drawn
        with.

        Args:
            conversations: The same answers are scored under each; its prompt is computed once.
            continuations: Token ids of each answer, or of its beginning.

        Returns:
            For each conversation one number a continuation, summed over its tokens. Minus infinity
            for one that goes on behind a token that ends an answer: the target never writes it.

        Raises:
            ContextOverflowError: A conversation and a continuation do not fit.
            InputError: A continuation is empty, or holds a token that the target does not have.
        """
        native = self._native
        for one in continuations:
            _require_tokens(one, native.n_vocab)
        places = [
            place
            for place, one in enumerate(continuations)
            if not any(native.is_stop(token) for token in one[:-1])
        ]
        # Those of like length together: a batch lasts as long as its longest.
        places.sort(key=lambda place: len(continuations[place]))
        written = [continuations[place] for place in places]
        found = iter(self._scored(conversations, written))
        rows = [[-math.inf] * len(continuations) for _ in conversations]
        for row in rows:
            for place in places:
                row[place] = next(found)
        return rows

    def _scored(
        self, conversations: Sequence[Sequence[Message]], written: Sequence[Sequence[int]]
    ) -> list[float]:
        """Scores under the first conversation, then under the next one; all decoded together."""
        works = [work for one in conversations for work in self._scoring_works(one, written)]
        # Fresh: the same answers are to get the same score, whatever was computed before.
        started = self._engine.submit_together(works, fresh=True)
        streams = [stream for batch in started for stream in batch]
        lengths = [len(one) for one in written] * len(conversations)
        try:
            return [
                math.fsum(draw.log_prob for draw in islice(stream, length))
                for stream, length in zip(streams, lengths, strict=True)
            ]
        finally:
            for stream in streams:
                stream.cancel()

    def _scoring_works(
        self, messages: Sequence[Message], written: Sequence[Sequence[int]]
    ) -> Iterator[Work[Source]]:
        """As few batches as rows and context allow."""
        prompt = self.prompt_tokens(messages)
        longest = max(map(len, written), default=1)
        fitting = (self.settings.context - len(prompt)) // longest
        together = max(1, min(self.settings.sequences, fitting))
        for start in range(0, len(written), together):
            some = written[start : start + together]
            yield Work(prompt, [GivenTokens(one) for one in some], max(map(len, some)))

    def is_like(self, other: LlamaTarget) -> bool:
        """Whether both write with the same tokens, so that each can score what the other wrote."""
        ours, theirs = self._native, other._native
        return ours.n_vocab == theirs.n_vocab and all(
            ours.piece(token) == theirs.piece(token)
            and ours.is_stop(token) == theirs.is_stop(token)
            for token in range(ours.n_vocab)
        )

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        return self._native.piece(token)


def _require_tokens(tokens: Sequence[int], size: int) -> None:
    """Refuse what llama.cpp cannot decode.

    Raises:
        InputError: There is no token, or one that the vocabulary does not have.
    """
    if not tokens or not all(0 <= token < size for token in tokens):
        raise InputError(
            f"An answer to be scored needs tokens from 0 to {size - 1}, found {list(tokens)[:8]}.",
            "Score what this target wrote, or another one with the same vocabulary.",
        )


def _left(question: Question) -> int:
    """How many tokens its answers may still get."""
    return question.max_tokens - len(question.begun)


class _NativeModel:
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
        buffer = ctypes.create_string_buffer(256)
        length = self.lib.llama_token_to_piece(self.vocab, token, buffer, 256, 0, False)
        return buffer.raw[: max(length, 0)]

    def is_stop(self, token: int) -> bool:
        return bool(self.lib.llama_vocab_is_eog(self.vocab, token))

    def free_sampler(self, sampler: Source) -> None:
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


class _LlamaStepper:
    """llama.cpp as the engine's loop sees it; called on the loop's thread only."""

    def __init__(self, native: _NativeModel) -> None:
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
        return self._native.settings.sequences

    @property
    def capacity(self) -> int:
        # llama.cpp rounds a context up; what was asked for and planned is what holds.
        return self._native.settings.context

    @property
    def row_capacity(self) -> int:
        return min(self.capacity, int(self._lib.llama_n_ctx_seq(self._native.context)))

    @property
    def micro_batch(self) -> int:
        # llama.cpp lowers its batch to the context and aborts the process above it.
        return int(self._lib.llama_n_batch(self._native.context))

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
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
        place = self._outputs[output]
        context = self._native.context
        pointer = self._lib.llama_get_logits_ith(context, place)
        logits = np.ctypeslib.as_array(pointer, (self._native.n_vocab,))
        if isinstance(sampler, GivenTokens):
            return sampler.draw(logits)
        token = int(self._lib.llama_sampler_sample(sampler.pointer, context, place))
        return Draw(token, token_log_prob(logits, token))

    def is_stop(self, token: int) -> bool:
        return self._native.is_stop(token)

    def share(self, source: int, target: int, length: int) -> None:
        self._lib.llama_memory_seq_cp(self._native.memory, source, target, 0, length)

    def trim(self, row: int, length: int) -> bool:
        return bool(self._lib.llama_memory_seq_rm(self._native.memory, row, length, -1))

    def release(self, sampler: Source) -> None:
        self._native.free_sampler(sampler)

    def close(self) -> None:
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
