"""A decoder graph in onnxruntime, run on a KV cache of its own.

Every graph takes `input_ids` and `attention_mask`, reads `past_key_values.i.key|value`
of shape (batch, kv_heads, length, head_dim), and gives `logits` of shape (batch,
positions, vocab) and `present.i.key|value`. A graph with a shared cache writes
present into the memory of past; one with a growing cache returns a copy that is
longer by the new positions. A graph with a gate is two models on the same weights
(see `bundle.Graph`); each of them needs a cache of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from alignpro_lite.decoding.ort import onnxruntime
from alignpro_lite.hardware.device import Device
from alignpro_lite.prompter.bundle import Graph
from alignpro_lite.prompter.kv_cache import GpuBuffers, HostBuffers, present_name

if TYPE_CHECKING:
    from numpy.typing import NDArray


def new_runner(
    session: Any, graph: Graph, gpu: int | None, adapter: float
) -> SharedRunner | GrowingRunner:
    """A runner with an empty cache.

    Args:
        session: onnxruntime's session of the graph.
        graph: What the graph is.
        gpu: Index of the GPU that the session runs on, None for the CPU.
        adapter: What a gate is set to: 1 runs ρ_θ, 0 runs ρ_sft.
    """
    gate = {} if graph.gate is None else {graph.gate: np.full(1, adapter, graph.io_dtype)}
    if graph.cache == "growing":
        return GrowingRunner(session, HostBuffers(session, graph), gate)
    if gpu is None:
        return SharedRunner(session, graph, HostBuffers(session, graph), ("cpu", 0), gate)
    return SharedRunner(session, graph, GpuBuffers(session, graph, gpu), ("cuda", gpu), gate)


class SharedRunner:
    """Runs a graph that writes new keys and values into the buffers in place.

    Attributes:
        buffers: The cache.
        options: onnxruntime's options of every run: its `terminate` ends the one under way.
    """

    def __init__(
        self,
        session: Any,
        graph: Graph,
        buffers: HostBuffers,
        place: tuple[Device, int],
        gate: Mapping[str, NDArray[Any]],
    ) -> None:
        self.buffers = buffers
        self.options = onnxruntime().RunOptions()
        self._gate = gate
        self._session = session
        self._graph = graph
        self._place = place
        self._dtype = np.dtype(graph.io_dtype)
        self._binding = session.io_binding()
        self._bound: tuple[int, int, int] | None = None

    def run(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Append tokens to the leading slots, which the buffers must have room for.

        Args:
            ids: Token ids, shape (batch, positions).
            starts: How many tokens each slot holds, shape (batch,).

        Returns:
            Logits, shape (batch, positions, vocab).
        """
        batch, positions = ids.shape
        self._bind_cache(batch)
        mask = _mask(starts + positions)
        logits = np.empty((batch, positions, self._graph.vocab), self._dtype)
        self._binding.bind_cpu_input("input_ids", ids)
        self._binding.bind_cpu_input("attention_mask", mask)
        for name, value in self._gate.items():
            self._binding.bind_cpu_input(name, value)
        self._binding.bind_output("logits", "cpu", 0, self._dtype, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(self._binding, self.options)
        return logits.astype(np.float32, copy=False)

    def _bind_cache(self, batch: int) -> None:
        """Bind the leading slots; again only when their number or the buffers changed."""
        shape = (batch, self._graph.kv_heads, self.buffers.length, self._graph.head_dim)
        wanted = (batch, self.buffers.rows, self.buffers.length)
        if self._bound == wanted:
            return
        for name, address in self.buffers.addresses().items():
            memory = (*self._place, self._dtype, shape, address)
            self._binding.bind_input(name, *memory)
            self._binding.bind_output(present_name(name), *memory)
        self._bound = wanted


class GrowingRunner:
    """Runs a graph that returns longer copies, and copies the new positions into the buffers.

    Attributes: See `SharedRunner`.
    """

    def __init__(
        self, session: Any, buffers: HostBuffers, gate: Mapping[str, NDArray[Any]]
    ) -> None:
        self.buffers = buffers
        self.options = onnxruntime().RunOptions()
        self._gate = gate
        self._session = session
        self._inputs = {i.name for i in session.get_inputs()}

    def run(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Append tokens to the leading slots; see `SharedRunner.run`."""
        batch, positions = ids.shape
        longest = int(starts.max())
        arrays = self.buffers.arrays
        new = np.ones((batch, positions), np.int64)
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": ids,
            # Slots shorter than the longest one have a masked gap before the new tokens.
            "attention_mask": np.concatenate([_mask(starts, longest), new], axis=1),
            "position_ids": starts[:, None] + np.arange(positions),
            **self._gate,
            **{name: array[:batch, :, :longest] for name, array in arrays.items()},
        }
        logits, *present = self._session.run(
            ["logits", *map(present_name, arrays)],
            {name: value for name, value in feeds.items() if name in self._inputs},
            self.options,
        )
        for array, grown in zip(arrays.values(), present, strict=True):
            for slot, start in enumerate(starts):
                array[slot, :, start : start + positions] = grown[slot, :, longest:]
        result: NDArray[np.float32] = logits.astype(np.float32, copy=False)
        return result


def _mask(lengths: NDArray[np.int64], width: int | None = None) -> NDArray[np.int64]:
    """1 where a slot holds a token: shape (batch, width), by default the longest length."""
    columns = np.arange(int(lengths.max()) if width is None else width)
    return (columns < lengths[:, None]).astype(np.int64)
