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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import chain, pairwise
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from alignpro_lite.decoding.bindings import bindings_error, require_fitting
from alignpro_lite.decoding.cancellation import LoadWatch
from alignpro_lite.decoding.environment import native_settings
from alignpro_lite.decoding.exhaustion import exhausted
from alignpro_lite.decoding.markers import Rendered, is_marker
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
_KEPT_TOKENS = 4096
"""What is asked of every token of every answer is kept for so many tokens, because each call into C
lets another thread have the interpreter."""
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


def ggml_function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of the ggml libraries that llama_cpp has loaded, and does not bind.

    Args:
        name: Its name in C.
        result: Its ctypes result.
        arguments: Its ctypes arguments.

    Raises:
        MissingDependencyError: This llama.cpp has no such function.
    """
    native = llama_cpp().llama_cpp
    for library in _ggml_libraries(native):
        try:
            function = library[name]  # unlike an attribute, nobody else's object
        except AttributeError:
            continue
        function.restype, function.argtypes = result, arguments
        return function
    raise MissingDependencyError(
        f"llama-cpp-python {llama_cpp().__version__} has no {name}.",
        "Run `pip install --upgrade llama-cpp-python`.",
    )


def _ggml_libraries(native: Any) -> Iterator[ctypes.CDLL]:
    """libllama, in which Linux and macOS also find what it depends on; then ggml itself."""
    yield native._lib
    for name in ("ggml", "ggml-base"):
        try:
            yield native.load_shared_library(name, native._base_path)
        except (FileNotFoundError, RuntimeError):
            continue  # one library holds everything


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

    def __init__(self, path: Path, params: Any, watch: LoadWatch | None = None) -> None:
        """Open a file.

        Args:
            path: The GGUF file.
            params: A `struct llama_model_params`.
            watch: Told how far the weights are, tensor by tensor.

        Raises:
            MissingDependencyError: llama-cpp-python is not installed.
            ModelFileError: llama.cpp cannot open the file.
            DeviceError: There is not enough memory.
            CancelledError: The watcher has cancelled it.
        """
        lib = self.lib = llama_cpp()
        with _watched(params, watch or LoadWatch(), lib):
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
        self._piece = lru_cache(_KEPT_TOKENS)(partial(_piece, lib, self._vocab))
        self._is_stop = lru_cache(_KEPT_TOKENS)(partial(lib.llama_vocab_is_eog, self._vocab))

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
        return bool(self._is_stop(token))

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

    def strips(self, token: int) -> tuple[bool, bool]:
        """Whether white space is lost before a token, and behind it."""
        attributes = self.lib.llama_vocab_get_attr(self._vocab, token)
        before, behind = self.lib.LLAMA_TOKEN_ATTR_LSTRIP, self.lib.LLAMA_TOKEN_ATTR_RSTRIP
        return bool(attributes & before), bool(attributes & behind)

    @cached_property
    def _special_texts(self) -> dict[str, bool]:
        """Texts that llama.cpp takes for a token anywhere; whether it is of a user's making."""
        lib, vocab = self.lib, self._vocab
        user_defined = lib.LLAMA_TOKEN_ATTR_USER_DEFINED
        special = user_defined | lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        attributes = (lib.llama_vocab_get_attr(vocab, token) for token in range(self.n_vocab))
        found = ((token, kind) for token, kind in enumerate(attributes) if kind & special)
        texts = {self.special_text(token): bool(kind & user_defined) for token, kind in found}
        return {text: is_user_defined for text, is_user_defined in texts.items() if text}

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text, no bos or eos added.

        Args:
            text: Any text.
            special: Whether special tokens that are written in it count as such.
        """
        return self._joined(_cut(text, _long_run_cuts(text, 0, len(text))), special)

    def tokenize_inside(self, text: str) -> list[int]:
        """Token ids of a plain text that something stands before."""
        return self._joined(["", text], special=False)

    def _joined(self, pieces: Sequence[str], special: bool) -> list[int]:
        """Token ids of pieces that follow one another; a single character is never special."""
        first, *others = pieces
        tokens = self._tokenize(first, special and len(first) > 1)
        before = self._tokenize(_FENCE, special=False) if others else []
        for piece in others:
            counts = special and len(piece) > 1
            fenced = self._tokenize(_FENCE + piece, counts)
            follows = fenced[: len(before)] == before
            tokens += fenced[len(before) :] if follows else self._tokenize(piece, counts)
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

    def tokenize_rendered(self, rendered: Rendered, template: str) -> list[int]:
        """Token ids of a conversation, those that llama.cpp gives for its whole text.

        Where a message holds a marker, the text is cut inside, and the pieces are tokenised apart.

        Args:
            rendered: What `render` returns.
            template: All that the chat template may write; see `is_marker`.

        Raises:
            InputError: See `Rendered.find`.
        """
        text = rendered.text
        found = rendered.find(
            special
            for special, is_user_defined in self._special_texts.items()
            if special in text and (not is_user_defined or is_marker(special, template))
        )
        borders = [0, *chain.from_iterable(found.own), len(text)]
        between = zip(borders[::2], borders[1::2], strict=True)
        runs = (_long_run_cuts(text, start, end) for start, end in between)
        return self._joined(_cut(text, found.cuts().union(*runs)), special=True)

    def piece(self, token: int) -> bytes:
        """The bytes of a token; control tokens have none."""
        return self._piece(token)

    def _special_id(self, kind: str) -> int | None:
        token = int(getattr(self.lib, f"llama_vocab_{kind}")(self._vocab))
        return None if token < 0 else token


def _piece(lib: ModuleType, vocab: Any, token: int) -> bytes:
    for size in (_USUAL_PIECE, _LONGEST_PIECE):
        buffer = ctypes.create_string_buffer(size)
        length = lib.llama_token_to_piece(vocab, token, buffer, size, 0, False)
        if length >= 0:
            break
    return buffer.raw[: max(length, 0)]


@contextmanager
def _watched(params: Any, watch: LoadWatch, lib: ModuleType) -> Iterator[None]:
    """Have llama.cpp report to a watcher, and stop for it.

    Raises:
        CancelledError: The watcher has cancelled the loading.
        Exception: What the watcher raised, which must not pass through C.
    """
    raised: list[BaseException] = []

    def tell(share: float, _: object) -> bool:
        try:
            watch.report(share)
        except BaseException as error:  # noqa: BLE001 - raised below
            raised.append(error)
        return not (raised or watch.cancellation.asked)

    callback = params.progress_callback = lib.llama_progress_callback(tell)
    try:
        yield
    finally:
        params.progress_callback = type(callback)()
    if raised:
        raise raised[0]
    watch.cancellation.check()


def _cut(text: str, places: Iterable[int]) -> list[str]:
    """A text, cut at places."""
    return [text[start:end] for start, end in pairwise(sorted({0, len(text), *places}))] or [""]


def _long_run_cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Where to cut a stretch of a text, because a run in it gets too long."""
    if end - start >= _LONGEST_RUN:
        for pattern in _RUNS:
            for run in pattern.finditer(text, start, end):
                yield from _cuts(text, *run.span())


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

    def adapt(self, adapter: Path, scale: float) -> None:
        """Add a LoRA adapter to the weights, for this context alone; the model frees it.

        Args:
            adapter: A GGUF file of such an adapter.
            scale: What its update is multiplied by.

        Raises:
            ModelFileError: llama.cpp cannot open it, or it does not fit the model.
        """
        lib = self._lib
        opened = lib.llama_adapter_lora_init(self._model.pointer, os.fsencode(adapter))
        adapters, scales = (lib.llama_adapter_lora_p_ctypes * 1)(), (ctypes.c_float * 1)(scale)
        adapters[0] = opened
        if not opened or lib.llama_set_adapters_lora(self.pointer, adapters, 1, scales):
            self.close()
            raise ModelFileError(
                f"llama.cpp cannot use the adapter {adapter} with this model: {_last_line()}.",
                "Use an adapter that was made for it, as a GGUF file.",
            )

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
