"""A decoder graph in onnxruntime, stepped by the engine.

Every graph takes `input_ids` and `attention_mask`, reads `past_key_values.i.key|value`
of shape (batch, kv_heads, length, head_dim), and gives `logits` of shape (batch,
positions, vocab) and `present.i.key|value`. A graph with a shared cache writes
present into the past's own memory; one with a growing cache returns a copy
that is longer by the new positions. A graph with a gate is two models on the same
weights (see `bundle.Graph`); each of them has a cache of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignpro_lite.decoding.ort import onnxruntime, open_session
from alignpro_lite.decoding.sampling import Draw, TokenSource
from alignpro_lite.hardware.system import trim_heap
from alignpro_lite.prompter.bundle import Bundle, Device, Graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 40
"""Prompt tokens computed between two looks at the cancel flags. The graph gives the logits of every
one of them, 200 kB each for a vocabulary of 49,000: larger chunks would be the largest thing in
memory after the weights, and hardly faster."""
_LENGTH_STEP = 128
"""The cache grows by this many tokens at a time."""


@dataclass(frozen=True)
class DecoderSettings:
    """How to load a decoder.

    Attributes:
        device: Where it runs.
        gpu: Index of the GPU; 0 when there is no choice.
        sequences: How many sequences are decoded together at most.
        threads: CPU threads.
    """

    device: Device
    gpu: int
    sequences: int
    threads: int


class OnnxDecoder:
    """A session and a KV cache as the engine's loop sees them."""

    def __init__(
        self, bundle: Bundle, settings: DecoderSettings, session: Any, adapter: float = 1.0
    ) -> None:
        """Begin with an empty cache.

        Args:
            bundle: What the graph is.
            settings: Sizes and devices.
            session: Of `open_graph`; decoders on several threads may share it.
            adapter: What a gate is set to: 1 decodes with ρ_θ, 0 with ρ_sft.
        """
        self._graph = bundle.sidecar.graph
        self._stops = frozenset(bundle.sidecar.tokens.stop)
        self.device: Device = settings.device
        self._rows = settings.sequences
        self._slots = _SlotMap()
        self._runner = _new_runner(session, self._graph, settings, adapter)
        self.outputs: NDArray[np.float32] = np.empty((0, self._graph.vocab), np.float32)

    @property
    def rows(self) -> int:
        """How many sequences it holds at once."""
        return self._rows

    @property
    def row_capacity(self) -> int:
        """Most tokens of a sequence."""
        return self._graph.max_length

    @property
    def capacity(self) -> int:
        """Most tokens of all sequences; rows share nothing here."""
        return self._graph.max_length * self._rows

    @property
    def micro_batch(self) -> int:
        """Most prompt tokens of one `prefill`."""
        return _CHUNK

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Append prompt tokens to a row; output 0 is the last one's."""
        self._make_room(start + len(tokens), [row])
        self._bring_to_front([row])
        ids = np.array([tokens], np.int64)
        # A copy: a view would keep the logits of all positions, 200 kB each, in memory.
        self.outputs = self._runner.run(ids, np.array([start]))[:, -1].copy()

    def decode(self, rows: Sequence[int], tokens: Sequence[int], starts: Sequence[int]) -> None:
        """Append one token to each row; output i belongs to rows[i]."""
        self._make_room(max(starts) + 1, rows)
        self._bring_to_front(rows)
        order = [self._slots.of(row) for row in rows]
        ids = np.empty((len(rows), 1), np.int64)
        lengths = np.empty(len(rows), np.int64)
        ids[order, 0] = tokens
        lengths[order] = starts
        self.outputs = self._runner.run(ids, lengths)[order, -1]

    def draw(self, output: int, sampler: TokenSource) -> Draw:
        """Draw a token from an output of the last `prefill` or `decode`."""
        return sampler.draw(self.outputs[output])

    def is_stop(self, token: int) -> bool:
        """Whether a token ends the sequence."""
        return token in self._stops

    def share(self, source: int, target: int, length: int) -> None:
        """Copy the first tokens of a row into another one."""
        self._make_room(length, [target])
        self._runner.buffers.copy(self._slots.of(source), self._slots.of(target), length)

    def trim(self, row: int, length: int) -> bool:
        """Forget the end of a row; what lies behind it is masked, so nothing moves."""
        if length == 0:
            self._slots.drop(row)
        return True

    def release(self, sampler: TokenSource) -> None:
        """Nothing to give back: samplers are plain Python."""

    def close(self) -> None:
        """Give back the cache, and the session if nobody else uses it."""
        del self._runner
        trim_heap()

    def _make_room(self, length: int, rows: Sequence[int]) -> None:
        for row in rows:
            self._slots.assign(row)
        buffers = self._runner.buffers
        if len(self._slots) > buffers.rows or length > buffers.length:
            steps = -(-length // _LENGTH_STEP)
            wanted = min(steps * _LENGTH_STEP, self._graph.max_length)
            buffers.resize(max(len(self._slots), buffers.rows), max(wanted, buffers.length))

    def _bring_to_front(self, rows: Sequence[int]) -> None:
        """Move rows into slots 0 to len(rows) - 1, because a batch is a leading block."""
        for here, there in self._slots.moves_to_front(rows):
            self._runner.buffers.swap(here, there)


class _SlotMap:
    """Which slot of the cache holds which row of the engine."""

    def __init__(self) -> None:
        self._rows: list[int | None] = []

    def __len__(self) -> int:
        return len(self._rows)

    def of(self, row: int) -> int:
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


class _HostBuffers:
    """KV buffers in main memory: one array of shape (rows, kv_heads, length, head_dim) a name."""

    def __init__(self, session: Any, graph: Graph) -> None:
        self._dtype = np.dtype(graph.io_dtype)
        self._head = (graph.kv_heads, graph.head_dim)
        self.rows = self.length = 0
        self._buffers = {name: self._empty(0, 0) for name in _cache_names(session)}

    def _empty(self, rows: int, length: int) -> NDArray[Any]:
        # Zeros, not garbage: masked positions are still multiplied, and NaN times 0 is NaN.
        heads, size = self._head
        return np.zeros((rows, heads, length, size), self._dtype)

    def resize(self, rows: int, length: int) -> None:
        for name, old in self._buffers.items():
            new = self._empty(rows, length)
            new[: self.rows, :, : self.length] = old
            self._buffers[name] = new
        self.rows, self.length = rows, length
        trim_heap()

    def copy(self, source: int, target: int, length: int) -> None:
        for buffer in self._buffers.values():
            buffer[target, :, :length] = buffer[source, :, :length]

    def swap(self, one: int, other: int) -> None:
        for buffer in self._buffers.values():
            buffer[[one, other]] = buffer[[other, one]]

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self._buffers

    def addresses(self) -> dict[str, int]:
        return {name: buffer.ctypes.data for name, buffer in self._buffers.items()}


class _GpuBuffers:
    """The same in GPU memory. Rows move through main memory: once a request, not once a token."""

    def __init__(self, session: Any, graph: Graph, gpu: int) -> None:
        self._host = _HostBuffers(session, graph)
        self._gpu = gpu
        self._buffers: dict[str, Any] = {}

    @property
    def rows(self) -> int:
        return self._host.rows

    @property
    def length(self) -> int:
        return self._host.length

    def resize(self, rows: int, length: int) -> None:
        self._fetch()
        self._host.resize(rows, length)
        ort_value = onnxruntime().OrtValue
        self._buffers = {
            name: ort_value.ortvalue_from_numpy(array, "cuda", self._gpu)
            for name, array in self._host.arrays().items()
        }

    def copy(self, source: int, target: int, length: int) -> None:
        self._fetch()
        self._host.copy(source, target, length)
        self._store()

    def swap(self, one: int, other: int) -> None:
        self._fetch()
        self._host.swap(one, other)
        self._store()

    def addresses(self) -> dict[str, int]:
        return {name: buffer.data_ptr() for name, buffer in self._buffers.items()}

    def _fetch(self) -> None:
        for name, buffer in self._buffers.items():
            self._host.arrays()[name][...] = buffer.numpy()

    def _store(self) -> None:
        for name, buffer in self._buffers.items():
            buffer.update_inplace(self._host.arrays()[name])


class _SharedRunner:
    """Runs a graph that writes new keys and values into the buffers in place."""

    def __init__(
        self,
        session: Any,
        graph: Graph,
        buffers: _HostBuffers | _GpuBuffers,
        place: tuple[Device, int],
        gate: Mapping[str, NDArray[Any]],
    ) -> None:
        self.buffers = buffers
        self._gate = gate
        self._session = session
        self._graph = graph
        self._place = place
        self._dtype = np.dtype(graph.io_dtype)
        self._binding = session.io_binding()
        self._bound: tuple[int, int, int] | None = None

    def run(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        batch, positions = ids.shape
        self._bind_cache(batch)
        mask = _mask(starts + positions)
        logits = np.empty((batch, positions, self._graph.vocab), self._dtype)
        self._binding.bind_cpu_input("input_ids", ids)
        self._binding.bind_cpu_input("attention_mask", mask)
        for name, value in self._gate.items():
            self._binding.bind_cpu_input(name, value)
        self._binding.bind_output("logits", "cpu", 0, self._dtype, logits.shape, logits.ctypes.data)
        self._session.run_with_iobinding(self._binding)
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
            self._binding.bind_output(_present_name(name), *memory)
        self._bound = wanted


class _GrowingRunner:
    """Runs a graph that returns longer copies, and files the new positions in the buffers."""

    def __init__(
        self, session: Any, buffers: _HostBuffers, gate: Mapping[str, NDArray[Any]]
    ) -> None:
        self.buffers = buffers
        self._gate = gate
        self._session = session
        self._inputs = {i.name for i in session.get_inputs()}

    def run(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        batch, positions = ids.shape
        longest = int(starts.max())
        arrays = self.buffers.arrays()
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
            ["logits", *map(_present_name, arrays)],
            {name: value for name, value in feeds.items() if name in self._inputs},
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


def _cache_names(session: Any) -> list[str]:
    """Names of the cache inputs, such as `past_key_values.0.key`."""
    return [i.name for i in session.get_inputs() if i.name.startswith("past_key_values.")]


def _present_name(past: str) -> str:
    return past.replace("past_key_values.", "present.")


def _new_runner(
    session: Any, graph: Graph, settings: DecoderSettings, adapter: float
) -> _SharedRunner | _GrowingRunner:
    gate = {} if graph.gate is None else {graph.gate: np.full(1, adapter, graph.io_dtype)}
    if graph.cache == "growing":
        return _GrowingRunner(session, _HostBuffers(session, graph), gate)
    if settings.device == "cuda":
        buffers = _GpuBuffers(session, graph, settings.gpu)
        return _SharedRunner(session, graph, buffers, ("cuda", settings.gpu), gate)
    return _SharedRunner(session, graph, _HostBuffers(session, graph), ("cpu", 0), gate)


def cache_bytes(graph: Graph, rows: int, length: int) -> int:
    """Bytes of the KV buffers for this many rows of this many tokens."""
    per_token = 2 * graph.layers * graph.kv_heads * graph.head_dim
    return per_token * rows * length * np.dtype(graph.io_dtype).itemsize


def open_graph(bundle: Bundle, settings: DecoderSettings) -> Any:
    """Load the graph of a bundle; returns onnxruntime's session.

    Raises:
        BundleError: onnxruntime cannot read the graph.
        DeviceError: CUDA was asked for and cannot be used.
        MissingDependencyError: onnxruntime is not installed.
    """
    return open_session(
        bundle.graph_file,
        settings.threads,
        gpu=settings.gpu if settings.device == "cuda" else None,
        cure="Make the bundle again with `alignpro-lite export bundle` or `export prompter`.",
    )
