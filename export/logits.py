"""The models that parity compares: torch, llama.cpp and onnxruntime, each on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from alignpro_lite.decoding.llamacpp import LlamaContext, LlamaModel, llama_cpp
from alignpro_lite.prompter.bundle import Graph
from alignpro_lite.prompter.graph_runner import new_runner

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]


class LogitsModel(Protocol):
    """A model under comparison: token ids [S] to next-token logits [S, V]."""

    def logits(self, ids: Ids) -> Logits:
        """Compute logits from an empty cache."""
        ...


class TorchLogits:
    """The original model."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model

    def logits(self, ids: Ids) -> Logits:
        """Compute logits [S, V] for ids [S]."""
        with torch.inference_mode():
            output = self._model(torch.from_numpy(ids)[None], use_cache=False)
        logits: Logits = output.logits[0].float().numpy()
        return logits


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

    def logits(self, ids: Ids) -> Logits:
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


class OnnxLogits:
    """Logits of whole windows of tokens, each from an empty cache, adapter on."""

    def __init__(self, session: Any, graph: Graph) -> None:
        """Make a cache.

        Args:
            session: onnxruntime's session of the graph, on the CPU.
            graph: What the graph is.
        """
        self._runner = new_runner(session, graph, gpu=None, adapter=1.0)

    def logits(self, ids: Ids) -> Logits:
        """Compute logits [S, V] for ids [S] from an empty cache."""
        return self._append(ids, 0)

    def greedy(self, prompt: Ids, count: int) -> list[int]:
        """Continue a prompt [S] by `count` tokens through the cache."""
        tokens = [int(self._append(prompt, 0)[-1].argmax())]
        while len(tokens) < count:
            done = len(prompt) + len(tokens) - 1
            tokens.append(int(self._append(np.array(tokens[-1:], np.int64), done)[-1].argmax()))
        return tokens

    def _append(self, ids: Ids, done: int) -> Logits:
        """Run `ids` [S] after `done` cached positions."""
        buffers = self._runner.buffers
        buffers.resize(1, max(buffers.length, done + len(ids)))
        logits: Logits = self._runner.run(ids[None], np.array([done]))[0]
        return logits
