"""A decoder graph under plain onnxruntime, for the parity check.

Two cache layouts exist. `shared`: GroupQueryAttention writes into one buffer that is bound as past
and present alike. `growing`: every step returns a longer copy of the cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.decoding.ort import onnxruntime, open_session
from alignpro_lite.export.low_rank import GATE
from alignpro_lite.prompter.bundle import CacheLayout, IoDtype

_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
}


class OnnxLogits:
    """Logits of one decoder graph.

    Attributes:
        layers: Number of key/value pairs.
        kv_heads: Heads of the cache.
        head_dim: Width of a head.
        vocabulary: Logits per position.
        io_dtype: "float32" or "float16", the type of cache and logits.
        is_gated: Whether an input switches its adapter, which is on here.
    """

    def __init__(self, path: Path, layout: CacheLayout, head_dim: int, threads: int) -> None:
        """Open a graph on the CPU.

        Args:
            path: The .onnx file.
            layout: How the graph keeps its cache.
            head_dim: Width of a head (the graph may leave it open).
            threads: CPU threads.

        Raises:
            BundleError: onnxruntime cannot open the graph.
        """
        cure = "Try another --precision, or report the architecture."
        self._session: Any = open_session(path, threads, cure=cure)
        self._inputs = {entry.name: entry for entry in self._session.get_inputs()}
        self._past = sorted(name for name in self._inputs if name.startswith("past_key_values"))
        self._layout = layout
        self.is_gated = GATE in self._inputs
        self.layers = len(self._past) // 2
        self.kv_heads = int(self._inputs[self._past[0]].shape[1])
        self.head_dim = head_dim
        self.vocabulary = int(self._session.get_outputs()[0].shape[-1])
        self._dtype = _TYPES[self._inputs[self._past[0]].type]
        self.io_dtype = cast(IoDtype, np.dtype(self._dtype).name)

    def logits(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute logits [S, V] for ids [S] from an empty cache."""
        return self._step(ids, self._empty_cache(len(ids)), 0)[0]

    def greedy(self, prompt: NDArray[np.int64], count: int) -> list[int]:
        """Continue a prompt [S] by `count` tokens through the cache."""
        cache = self._empty_cache(len(prompt) + count)
        logits, cache = self._step(prompt, cache, 0)
        tokens = [int(logits[-1].argmax())]
        while len(tokens) < count:
            done = len(prompt) + len(tokens) - 1
            logits, cache = self._step(np.array(tokens[-1:], np.int64), cache, done)
            tokens.append(int(logits[-1].argmax()))
        return tokens

    def _empty_cache(self, capacity: int) -> dict[str, Any]:
        length = capacity if self._layout == "shared" else 0
        shape = (1, self.kv_heads, length, self.head_dim)
        return {
            name: onnxruntime().OrtValue.ortvalue_from_numpy(np.zeros(shape, self._dtype))
            for name in self._past
        }

    def _step(
        self, ids: NDArray[np.int64], cache: dict[str, Any], done: int
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Run `ids` [S] after `done` cached positions; return logits [S, V] and the new cache."""
        binding = self._session.io_binding()
        total = done + len(ids)
        binding.bind_cpu_input("input_ids", ids[None])
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        if "position_ids" in self._inputs:
            binding.bind_cpu_input("position_ids", np.arange(done, total, dtype=np.int64)[None])
        if self.is_gated:
            binding.bind_cpu_input(GATE, np.ones(1, self._dtype))
        binding.bind_output("logits", "cpu")
        for name, value in cache.items():
            binding.bind_ortvalue_input(name, value)
            present = name.replace("past_key_values", "present")
            if self._layout == "shared":
                binding.bind_ortvalue_output(present, value)
            else:
                binding.bind_output(present, "cpu")
        self._session.run_with_iobinding(binding)
        logits, *presents = binding.get_outputs()
        if self._layout == "growing":
            cache = dict(zip(cache, presents, strict=True))
        return logits.numpy()[0].astype(np.float32), cache
