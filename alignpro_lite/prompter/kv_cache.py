"""The KV cache of a decoder graph: buffers outside onnxruntime, and which row is where in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignpro_lite.decoding.ort import onnxruntime
from alignpro_lite.hardware.system import trim_heap
from alignpro_lite.prompter.bundle import Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray


def cache_bytes(graph: Graph, rows: int, length: int) -> int:
    """Bytes of the KV buffers for this many rows of this many tokens."""
    per_token = 2 * graph.layers * graph.kv_heads * graph.head_dim
    return per_token * rows * length * np.dtype(graph.io_dtype).itemsize


class SlotMap:
    """Which slot of the buffers holds which row of the engine."""

    def __init__(self) -> None:
        self._rows: list[int | None] = []

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, row: int) -> int:
        """The slot of a row."""
        return self._rows.index(row)

    def assign(self, row: int) -> None:
        """Give a row a slot unless it has one."""
        if row in self._rows:
            return
        if None in self._rows:
            self._rows[self._rows.index(None)] = row
        else:
            self._rows.append(row)

    def drop(self, row: int) -> None:
        """Take a row's slot away, if it has one."""
        if row in self._rows:
            self._rows[self._rows.index(row)] = None

    def moves_to_front(self, rows: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Swap rows into the leading slots; yields each pair of slots swapped."""
        count = len(rows)
        misplaced = [self.of(row) for row in rows if self.of(row) >= count]
        holes = [slot for slot in range(count) if self._rows[slot] not in rows]
        for here, there in zip(misplaced, holes, strict=True):
            self._rows[here], self._rows[there] = self._rows[there], self._rows[here]
            yield here, there


class HostBuffers:
    """KV buffers in main memory.

    Attributes:
        rows: How many slots there are.
        length: How many tokens a slot holds.
        arrays: By name of the graph's input, shape (rows, kv_heads, length, head_dim).
    """

    def __init__(self, session: Any, graph: Graph) -> None:
        self._dtype = np.dtype(graph.io_dtype)
        self._head = (graph.kv_heads, graph.head_dim)
        self.rows = self.length = 0
        self.arrays = {name: self._empty(0, 0) for name in _cache_names(session)}

    def _empty(self, rows: int, length: int) -> NDArray[Any]:
        # Zeros, not garbage: masked positions are still multiplied, and NaN times 0 is NaN.
        heads, size = self._head
        return np.zeros((rows, heads, length, size), self._dtype)

    def resize(self, rows: int, length: int) -> None:
        """Grow to this many slots of this many tokens."""
        if (rows, length) == (self.rows, self.length):
            return
        for name, old in self.arrays.items():
            new = self._empty(rows, length)
            new[: self.rows, :, : self.length] = old
            self.arrays[name] = new
        self.rows, self.length = rows, length
        trim_heap()

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first tokens of a slot into another one."""
        for buffer in self.arrays.values():
            buffer[target, :, :length] = buffer[source, :, :length]

    def swap(self, first: int, second: int) -> None:
        """Exchange two slots."""
        for buffer in self.arrays.values():
            buffer[[first, second]] = buffer[[second, first]]

    def addresses(self) -> dict[str, int]:
        """Where each array starts in memory."""
        return {name: buffer.ctypes.data for name, buffer in self.arrays.items()}


class GpuBuffers(HostBuffers):
    """KV buffers in GPU memory. Rows move through main memory: once a request, not once a token."""

    def __init__(self, session: Any, graph: Graph, gpu: int) -> None:
        super().__init__(session, graph)
        self._gpu = gpu
        self._on_gpu: dict[str, Any] = {}

    def resize(self, rows: int, length: int) -> None:
        """Grow to this many slots of this many tokens."""
        self._fetch()
        super().resize(rows, length)
        ort_value = onnxruntime().OrtValue
        self._on_gpu = {
            name: ort_value.ortvalue_from_numpy(array, "cuda", self._gpu)
            for name, array in self.arrays.items()
        }

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first tokens of a slot into another one."""
        self._fetch()
        super().copy(source, target, length)
        self._store()

    def swap(self, first: int, second: int) -> None:
        """Exchange two slots."""
        self._fetch()
        super().swap(first, second)
        self._store()

    def addresses(self) -> dict[str, int]:
        """Where each array starts in GPU memory."""
        return {name: buffer.data_ptr() for name, buffer in self._on_gpu.items()}

    def _fetch(self) -> None:
        for name, buffer in self._on_gpu.items():
            self.arrays[name][...] = buffer.numpy()

    def _store(self) -> None:
        for name, buffer in self._on_gpu.items():
            buffer.update_inplace(self.arrays[name])


def _cache_names(session: Any) -> list[str]:
    """Names of the cache inputs, such as `past_key_values.0.key`."""
    return [i.name for i in session.get_inputs() if i.name.startswith("past_key_values.")]


def present_name(past: str) -> str:
    """The output that continues a cache input."""
    return past.replace("past_key_values.", "present.")
