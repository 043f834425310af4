"""Logits of a decoder graph under comparison, on the CPU, by the runner that the runtime uses."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.prompter.bundle import Graph
from alignpro_lite.prompter.graph_runner import new_runner


class OnnxLogits:
    """Logits of whole windows of tokens, each from an empty cache, adapter on."""

    def __init__(self, session: Any, graph: Graph) -> None:
        """Make a cache.

        Args:
            session: onnxruntime's session of the graph, on the CPU.
            graph: What the graph is.
        """
        self._runner = new_runner(session, graph, gpu=None, adapter=1.0)

    def logits(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Compute logits [S, V] for ids [S] from an empty cache."""
        return self._append(ids, 0)

    def greedy(self, prompt: NDArray[np.int64], count: int) -> list[int]:
        """Continue a prompt [S] by `count` tokens through the cache."""
        tokens = [int(self._append(prompt, 0)[-1].argmax())]
        while len(tokens) < count:
            done = len(prompt) + len(tokens) - 1
            tokens.append(int(self._append(np.array(tokens[-1:], np.int64), done)[-1].argmax()))
        return tokens

    def _append(self, ids: NDArray[np.int64], done: int) -> NDArray[np.float32]:
        """Run `ids` [S] after `done` cached positions."""
        buffers = self._runner.buffers
        buffers.resize(1, max(buffers.length, done + len(ids)))
        logits: NDArray[np.float32] = self._runner.run(ids[None], np.array([done]))[0]
        return logits
