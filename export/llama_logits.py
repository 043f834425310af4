"""Logits of a GGUF file under comparison, by llama.cpp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.decoding.llamacpp import LlamaContext, LlamaModel, llama_cpp


class LlamaLogits:
    """Logits of whole windows of tokens, each from an empty cache, on the CPU."""

    def __init__(self, path: Path, window: int, threads: int) -> None:
        """Open a file with its weights.

        Args:
            path: The GGUF file.
            window: The longest window in tokens.
            threads: CPU threads.

        Raises:
            ModelFileError: llama.cpp cannot open the file.
            DeviceError: There is not enough memory.
        """
        lib = self._lib = llama_cpp()
        weights = lib.llama_model_default_params()
        weights.n_gpu_layers = 0
        params = lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = window
        params.n_threads = params.n_threads_batch = threads
        # A half-precision cache would count against the weights.
        params.type_k = params.type_v = lib.GGML_TYPE_F32
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = LlamaContext(LlamaModel(path, weights), params)

    def __enter__(self) -> LlamaLogits:
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.close()

    def logits(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute next-token logits.

        Args:
            ids: Token ids [S], S at most the window.

        Returns:
            Logits [S, V].

        Raises:
            DeviceError: llama.cpp fails to decode.
        """
        self._lib.llama_memory_clear(self._context.memory, True)
        places = range(len(ids))
        self._context.decode(ids.tolist(), places, [0] * len(ids), wanted=places)
        return np.stack([self._context.logits(place) for place in places])
