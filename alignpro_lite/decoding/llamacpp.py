"""llama.cpp: an opened model, its vocabulary and its context. The only file that imports llama_cpp.

The classes are thin: they turn llama.cpp's C calls into Python values and its failures into errors.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from alignpro_lite.decoding.bindings import bindings_error, require_fitting
from alignpro_lite.decoding.conversation import cut_inside, is_marker
from alignpro_lite.decoding.environment import native_settings
from alignpro_lite.decoding.exhaustion import exhausted
from alignpro_lite.decoding.rows import CallInterruptedError
from alignpro_lite.errors import DeviceError, InputError, MissingDependencyError, ModelFileError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.gguf.vocabulary import require_whole_vocabulary
from alignpro_lite.hardware.llama_build import fitting_args, install_command

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ABORTED = 2
"""What `llama_decode` returns when its abort callback ended it."""

_ERROR_LEVEL = 4
_KEPT_LINES = 20
_USUAL_PIECE, _LONGEST_PIECE = 1 << 8, 1 << 12
_LONGEST_RUN = 2048
_RUNS = (
    re.compile(rf"[^\r\n.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c]{{{_LONGEST_RUN},}}"),
    re.compile(rf"[\W_]{{{_LONGEST_RUN},}}"),
)
"""What nothing divides. The rules by which many vocabularies split a text make llama.cpp recurse
once a character there: a run of 25,000 overflows a stack of 8 MB."""
_WORD = re.compile(r"(?<=\w) (?=\w)")
"""Where a word begins, for every tokenizer: a text that is cut there keeps its tokens."""
_FENCE = "\x07"
"""A character that no tokenizer joins to others. Behind it, a SentencePiece tokenizer does not take
a text for the beginning of one."""
_NO_SETS = {"LLAMAFILE", "OPENMP", "REPACK", "ACCELERATE", "KLEIDIAI", "CPU_HBM"}
"""What llama.cpp lists beside instruction sets."""
_log_lines: list[str] = []
_log_callback: Any = None
_log_lock = threading.Lock()


def llama_cpp() -> ModuleType:
    """Import llama_cpp on first use, its log captured.

    Raises:
        MissingDependencyError: It is not installed, its library does not load, or that library has
            other functions or structures than it.
    """
    try:
        with native_settings("llama_cpp"):
            import llama_cpp
    except AttributeError as error:  # the library lacks a function
        raise bindings_error(None, str(error)) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingDependencyError(
            f"The target needs llama-cpp-python, which does not load ({error}).",
            f"Run `{install_command(fitting_args())}`.",
        ) from error
    require_fitting(llama_cpp)
    _capture_log(llama_cpp)
    return llama_cpp


@dataclass(frozen=True)
class LlamaBuild:
    """How the installed llama.cpp was made.

    Attributes:
        version: Of llama-cpp-python.
        instruction_sets: What the CPU must have for it, in llama.cpp's words: AVX2, NEON ...
        uses_gpu: Whether it has found a GPU that it was made for.
    """

    version: str
    instruction_sets: tuple[str, ...]
    uses_gpu: bool


def installed_build() -> LlamaBuild:
    """Ask llama.cpp how it was made.

    Raises:
        MissingDependencyError: It is not installed or cannot be used.
    """
    lib = llama_cpp()
    with native_settings():  # this looks for devices, in the order that CUDA is told
        told = bytes(lib.llama_print_system_info()).decode("utf-8", errors="replace")
        uses_gpu = bool(lib.llama_supports_gpu_offload())
    on_cpu = re.findall(r"(\w+) = 1\b", told.rpartition("CPU : ")[2])
    sets = tuple(name for name in on_cpu if name not in _NO_SETS)
    return LlamaBuild(str(lib.__version__), sets, uses_gpu)


def _capture_log(lib: ModuleType) -> None:
    """Keep llama.cpp off stderr, and keep its last log lines for error messages."""
    global _log_callback
    with _log_lock:  # llama.cpp must never hold a callback that Python has freed
        if _log_callback is None:
            _log_callback = lib.llama_log_callback(_keep_line)
        # Each time: other users of the library in this process may have replaced it.
        lib.llama_log_set(_log_callback, ctypes.c_void_p())


def _keep_line(level: int, text: bytes, _: object) -> None:
    line = text.decode("utf-8", errors="replace").strip()
    if level == _ERROR_LEVEL and line:
        _log_lines.append(line)
        del _log_lines[:-_KEPT_LINES]


def _last_line() -> str:
    """The last line that gives a reason."""
    telling = [line for line in _log_lines if not line.endswith("failed to load model")]
    return telling[-1] if telling else "it gave no reason"


def supports_gpu_offload() -> bool:
    """Whether the installed llama.cpp was built with a GPU backend."""
    lib = llama_cpp()
    with native_settings():  # this looks for devices, in the order that CUDA is told
        return bool(lib.llama_supports_gpu_offload())


def open_vocabulary(path: Path) -> LlamaModel:
    """Open a GGUF file without its weights, which is enough to tokenise.

    Raises:
        MissingDependencyError: llama-cpp-python is not installed.
        ModelFileError: The file's vocabulary is not whole, or llama.cpp cannot open it.
    """
    require_whole_vocabulary(read_header(path))
    params = llama_cpp().llama_model_default_params()
    params.vocab_only = True
    params.n_gpu_layers = 0
    return LlamaModel(path, params)


class LlamaModel:
    """A GGUF file that llama.cpp has opened: its vocabulary and its weights.

    The weights are freed with the last reference to this object, because other threads may still
    tokenise while one of them closes the model.

    Attributes:
        lib: The llama_cpp module.
        pointer: The `struct llama_model`.
        n_vocab: How many tokens there are.
    """

    def __init__(self, path: Path, params: Any) -> None:
        """Open a file.

        Args:
            path: The GGUF file.
            params: A `struct llama_model_params`.

        Raises:
            MissingDependencyError: llama-cpp-python is not installed.
            ModelFileError: llama.cpp cannot open the file.
            DeviceError: There is not enough memory.
        """
        lib = self.lib = llama_cpp()
        self.pointer: Any = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not self.pointer:
            if error := exhausted(path, _last_line()):
                raise error
            raise ModelFileError(
                f"llama.cpp cannot open {path}: {_last_line()}.",
                "Check it with `alignpro-lite models verify`, or upgrade llama-cpp-python "
                "if the model is newer than it.",
            )
        freeing = weakref.finalize(self, lib.llama_model_free, self.pointer)
        freeing.atexit = False  # a thread may still be decoding then
        self._vocab: Any = lib.llama_model_get_vocab(self.pointer)
        self.n_vocab = int(lib.llama_vocab_n_tokens(self._vocab))

    @property
    def bos(self) -> int | None:
        """Beginning-of-sequence id, or None."""
        return self._special_id("bos")

    @property
    def eos(self) -> int | None:
        """End-of-sequence id, or None."""
        return self._special_id("eos")

    @property
    def add_bos(self) -> bool:
        """Whether the model expects `bos` before every text."""
        return bool(self.lib.llama_vocab_get_add_bos(self._vocab))

    @property
    def stop(self) -> tuple[int, ...]:
        """Every id that ends an answer, ascending."""
        return tuple(token for token in range(self.n_vocab) if self.is_stop(token))

    @property
    def chat_template(self) -> str | None:
        """The file's own chat template, or None."""
        template = self.lib.llama_model_chat_template(self.pointer, None)
        return None if template is None else bytes(template).decode("utf-8", errors="replace")

    def is_stop(self, token: int) -> bool:
        """Whether a token ends an answer."""
        return bool(self.lib.llama_vocab_is_eog(self._vocab, token))

    def special_text(self, token: int | None) -> str:
        """How a special token is written, empty for None.

        Raises:
            ModelFileError: It is not text.
        """
        if token is None:
            return ""
        raw = bytes(self.lib.llama_vocab_get_text(self._vocab, token))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelFileError(
                f"The text of the model's token {token} must be UTF-8, found {raw[:20]!r}.",
                "The file is damaged: get it again, or use another one.",
            ) from error

    def special_texts_in(self, text: str) -> list[str]:
        """Texts of the special tokens that llama.cpp recognises in a template's own text."""
        plain = self.lib.LLAMA_TOKEN_ATTR_NORMAL | self.lib.LLAMA_TOKEN_ATTR_BYTE
        return [
            self.special_text(token)
            for token in set(self.tokenize(text, special=True))
            if not self._attributes(token) & plain
        ]

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, no bos or eos added.

        Args:
            text: Any text.
            special: Whether special tokens that are written in it count as such.
        """
        return self._joined(_without_long_runs(text), special)

    def _joined(self, pieces: Sequence[str], special: bool) -> list[int]:
        """Token ids of pieces that follow one another."""
        first, *others = pieces
        tokens = self._tokenize(first, special)
        before = self._tokenize(_FENCE, special) if others else []
        for piece in others:
            fenced = self._tokenize(_FENCE + piece, special)
            follows = fenced[: len(before)] == before
            tokens += fenced[len(before) :] if follows else self._tokenize(piece, special)
        return tokens

    def _tokenize(self, text: str, special: bool) -> list[int]:
        raw = text.encode("utf-8")
        for size in (len(raw) + 2, 4 * len(raw) + 8):  # few make more tokens than bytes
            buffer = (self.lib.llama_token * size)()
            count = self.lib.llama_tokenize(
                self._vocab, raw, len(raw), buffer, size, False, special
            )
            if count >= 0:
                return list(buffer[:count])
        raise InputError(
            f"llama.cpp cannot tokenise a text of {len(raw)} bytes.", "Shorten the prompt."
        )

    def tokenize_text(self, text: str, template: str) -> list[int]:
        """Token ids of a text in which no token marks structure.

        llama.cpp takes tokens of the type "user defined" out of any text. Where they are markers,
        the text is cut inside, and the pieces are tokenised apart.

        Args:
            text: Any text.
            template: All that the chat template may write; see `is_marker`.
        """
        pieces = _without_long_runs(text)
        while True:
            tokens = self._joined(pieces, special=False)
            markers = [
                written
                for token in set(tokens)
                if self._attributes(token) & self.lib.LLAMA_TOKEN_ATTR_USER_DEFINED
                and is_marker(written := self.special_text(token), template)
            ]
            if not markers:
                return tokens
            pieces = [part for piece in pieces for part in cut_inside(piece, markers)]

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        for size in (_USUAL_PIECE, _LONGEST_PIECE):
            buffer = ctypes.create_string_buffer(size)
            length = self.lib.llama_token_to_piece(self._vocab, token, buffer, size, 0, False)
            if length >= 0:
                break
        return buffer.raw[: max(length, 0)]

    def _attributes(self, token: int) -> int:
        return int(self.lib.llama_vocab_get_attr(self._vocab, token))

    def _special_id(self, kind: str) -> int | None:
        token = int(getattr(self.lib, f"llama_vocab_{kind}")(self._vocab))
        return None if token < 0 else token


def _without_long_runs(text: str) -> list[str]:
    """A text, cut where a run gets too long."""
    if len(text) < _LONGEST_RUN:
        return [text]
    runs = (run.span() for pattern in _RUNS for run in pattern.finditer(text))
    cuts = {0, len(text)}.union(*(_cuts(text, *run) for run in runs))
    return [text[start:end] for start, end in pairwise(sorted(cuts))]


def _cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Where to cut a run: before a word if there is one, so that no word loses its token."""
    while end - start > _LONGEST_RUN:
        words = [word.start() for word in _WORD.finditer(text, start + 1, start + _LONGEST_RUN)]
        start = words[-1] if words else start + _LONGEST_RUN
        yield start


class LlamaContext:
    """A KV cache of an opened model, and the batch that fills it. For one thread at a time.

    Attributes:
        pointer: The `struct llama_context`.
        memory: Its KV cache, a `llama_memory_t`.
        batch_size: Most tokens of one `decode`: llama.cpp lowers what was asked for to the context,
            and aborts the process above it.
        sequence_capacity: Most tokens of one sequence.
    """

    def __init__(self, model: LlamaModel, params: Any) -> None:
        """Allocate the cache.

        Args:
            model: Kept open until this context is closed.
            params: A `struct llama_context_params`.

        Raises:
            DeviceError: There is not enough memory.
        """
        self._model = model
        lib = self._lib = model.lib
        self.pointer: Any = lib.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise DeviceError(
                f"llama.cpp cannot make a context of {params.n_ctx} tokens: {_last_line()}.",
                "Lower --ctx or --n-gpu-layers.",
            )
        self.memory: Any = lib.llama_get_memory(self.pointer)
        self.batch_size = int(lib.llama_n_batch(self.pointer))
        self.sequence_capacity = int(lib.llama_n_ctx_seq(self.pointer))
        self._batch: Any = lib.llama_batch_init(self.batch_size, 0, 1)
        shape = (self.batch_size,)
        self._token = np.ctypeslib.as_array(self._batch.token, shape)
        self._position = np.ctypeslib.as_array(self._batch.pos, shape)
        self._wanted = np.ctypeslib.as_array(self._batch.logits, shape)
        np.ctypeslib.as_array(self._batch.n_seq_id, shape)[:] = 1
        self._sequence = [self._batch.seq_id[place] for place in range(self.batch_size)]
        self._logits = ctypes.c_float * model.n_vocab
        self._interrupted = (ctypes.c_char * 2)()
        self._is_interrupted = lib.ggml_abort_callback(_address_of_strlen())
        lib.llama_set_abort_callback(self.pointer, self._is_interrupted, self._interrupted)

    def interrupt(self) -> None:
        """Make the `decode` under way, and every later one, fail; from any thread, also if closed.

        On the CPU it ends within a node of the graph, on a GPU it may run to its end.
        """
        self._interrupted[0] = b"\1"

    def resume(self) -> None:
        """Let `decode` run again."""
        self._interrupted[0] = b"\0"

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        wanted: Sequence[int],
    ) -> None:
        """Compute tokens and append them to their sequences.

        Args:
            tokens: Ids, at most `batch_size`.
            positions: Place of each token in its sequence.
            sequences: Number of the sequence of each token.
            wanted: Which of the tokens need `logits`, as indices into `tokens`.

        Raises:
            DeviceError: llama.cpp failed.
            CallInterruptedError: `interrupt` was called; llama.cpp forgets what it had appended, as
                far as the model can.
        """
        count = self._batch.n_tokens = len(tokens)
        self._token[:count] = tokens
        self._position[:count] = positions
        self._wanted[:count] = 0
        self._wanted[list(wanted)] = 1
        for place, sequence in enumerate(sequences):
            self._sequence[place][0] = sequence
        status = self._lib.llama_decode(self.pointer, self._batch)
        if status == _ABORTED:
            raise CallInterruptedError
        if status != 0:
            raise DeviceError(
                f"llama.cpp failed to decode {count} tokens (status {status}).",
                "Lower --ctx or --n-gpu-layers, and run `alignpro-lite doctor`.",
            )

    def logits(self, place: int) -> NDArray[np.float32]:
        """Logits behind a wanted token of the last `decode`: (n_vocab,), valid until the next."""
        pointer = self._lib.llama_get_logits_ith(self.pointer, place)
        scores = self._logits.from_address(ctypes.addressof(pointer.contents))
        return np.frombuffer(memoryview(scores), np.float32)

    def close(self) -> None:
        """Free the KV cache, and the model if nothing else refers to it."""
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self.pointer)
        del self._model


def _address_of_strlen() -> int | None:
    """The address of C's `strlen`: 1, true, for a buffer whose first byte is set, otherwise 0.

    llama.cpp asks at every node of the graph whether to go on. A function in Python would wait each
    time for the interpreter, which other threads may hold.
    """
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    return ctypes.cast(library.strlen, ctypes.c_void_p).value
