"""llama.cpp as seen by the export: its tokenizer and its logits, nothing else."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, Self

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import ExportError


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _silent(level: int, text: bytes, data: ctypes.c_void_p) -> None:
    """Drop llama.cpp's log: what matters is raised as an error."""


class LlamaVocabulary:
    """The tokenizer of a GGUF file; a context manager that owns the model handle."""

    def __init__(self, path: Path, *, vocabulary_only: bool = True) -> None:
        """Open the file.

        Args:
            path: The GGUF file.
            vocabulary_only: Leave the weights on disk.

        Raises:
            ExportError: llama.cpp cannot open the file.
        """
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = vocabulary_only
        parameters.n_gpu_layers = 0
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self._model:
            raise ExportError(
                f"llama.cpp cannot open {path}.", "Check that the file is a complete GGUF."
            )
        self._vocabulary: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.size: int = llama_cpp.llama_vocab_n_tokens(self._vocabulary)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        llama_cpp.llama_model_free(self._model)

    @property
    def bos(self) -> int | None:
        """Beginning-of-sequence id, or None."""
        token = llama_cpp.llama_vocab_bos(self._vocabulary)
        return None if token < 0 else int(token)

    @property
    def eos(self) -> int:
        """End-of-sequence id."""
        return int(llama_cpp.llama_vocab_eos(self._vocabulary))

    @property
    def add_bos(self) -> bool:
        """Whether llama.cpp puts `bos` before every text."""
        return bool(llama_cpp.llama_vocab_get_add_bos(self._vocabulary))

    @property
    def stop(self) -> tuple[int, ...]:
        """Every id that llama.cpp takes as the end of generation, ascending."""
        ids = range(self.size)
        return tuple(i for i in ids if llama_cpp.llama_vocab_is_eog(self._vocabulary, i))

    @property
    def chat_template(self) -> str | None:
        """The file's chat template, or None."""
        template = llama_cpp.llama_model_chat_template(self._model, None)
        return None if template is None else template.decode()

    def tokenize(self, text: str) -> list[int]:
        """Tokenise a text, special tokens recognised, no bos added."""
        data = text.encode()
        room = len(data) + 1
        buffer = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self._vocabulary, data, len(data), buffer, room, False, True
        )
        return list(buffer[:count])


class LlamaEngine(LlamaVocabulary):
    """Logits of a GGUF file for whole windows of tokens, each from an empty cache."""

    def __init__(self, path: Path, window: int, threads: int) -> None:
        """Open the file with its weights.

        Args:
            path: The GGUF file.
            window: The longest window in tokens.
            threads: CPU threads.

        Raises:
            ExportError: llama.cpp cannot open the file.
        """
        super().__init__(path, vocabulary_only=False)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = window
        parameters.n_threads = parameters.n_threads_batch = threads
        # A half-precision cache would count against the weights.
        parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_F32
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context: Any = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ExportError(
                f"llama.cpp cannot make a context for {path}.", "Free some memory and try again."
            )

    def __exit__(self, *exc: object) -> None:
        llama_cpp.llama_free(self._context)
        super().__exit__(*exc)

    def logits(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute next-token logits.

        Args:
            ids: Token ids [S], S at most the window.

        Returns:
            Logits [S, V].

        Raises:
            ExportError: llama.cpp fails to decode.
        """
        count = len(ids)
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        batch = llama_cpp.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for position, token in enumerate(ids):
            batch.token[position] = int(token)
            batch.pos[position] = position
            batch.n_seq_id[position] = 1
            batch.seq_id[position][0] = 0
            batch.logits[position] = 1
        status = llama_cpp.llama_decode(self._context, batch)
        llama_cpp.llama_batch_free(batch)
        if status != 0:
            raise ExportError(
                f"llama.cpp failed to decode {count} tokens (status {status}).",
                "Run `alignpro-lite doctor` to check the engine.",
            )
        flat = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(flat, shape=(count, self.size)).copy()
