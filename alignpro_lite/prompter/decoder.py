"""A decoder graph as the decoding loop sees it: rows of a KV cache that are filled and stepped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alignpro_lite.decoding.cancellation import LoadWatch
from alignpro_lite.decoding.ort import open_session
from alignpro_lite.decoding.rows import CallInterruptedError
from alignpro_lite.decoding.sampling import Draw, TokenSource
from alignpro_lite.errors import BundleError
from alignpro_lite.hardware.device import Device
from alignpro_lite.hardware.system import trim_heap
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE, Bundle
from alignpro_lite.prompter.graph_runner import new_runner
from alignpro_lite.prompter.kv_cache import SlotMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK = 40
"""Prompt tokens of one run. The graph gives the logits of every one of them, 200 kB each for a
vocabulary of 49,000: after the weights, larger chunks would need the most memory, and be hardly
faster."""
_CACHE_AXES = 4
"""Of a cache input: batch, kv_heads, length, head_dim."""
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

    @property
    def gpu_in_use(self) -> int | None:
        """Index of the GPU it runs on, None on the CPU."""
        return self.gpu if self.device == "cuda" else None


def open_graph(bundle: Bundle, settings: DecoderSettings, watch: LoadWatch | None = None) -> Any:
    """Load the graph of a bundle; returns onnxruntime's session.

    Raises:
        BundleError: onnxruntime cannot read the graph, or it is not as the sidecar says.
        DeviceError: CUDA was asked for and cannot be used.
        MissingDependencyError: onnxruntime is not installed.
    """
    session = open_session(
        bundle.graph_file,
        settings.threads,
        gpu=settings.gpu_in_use,
        cure=PROMPTER_BUNDLE.cure,
        watch=watch,
    )
    _require_sizes(bundle, session)
    return session


def _require_sizes(bundle: Bundle, session: Any) -> None:
    """Compare what the sidecar says with the graph, where that fixes a size.

    Raises:
        BundleError: They differ.
    """
    graph = bundle.sidecar.graph
    shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    keys = [shape for name, shape in shapes.items() if name in _key_names(len(shapes))]
    found = {
        "layers": [len(keys)],
        "kv_heads": [shape[1] for shape in keys if len(shape) == _CACHE_AXES],
        "head_dim": [shape[3] for shape in keys if len(shape) == _CACHE_AXES],
        "vocab": [shape[-1] for name, shape in shapes.items() if name == "logits" and shape],
    }
    for name, sizes in found.items():
        told = getattr(graph, name)
        for size in sizes:
            if isinstance(size, int) and size != told:
                raise BundleError(
                    f"{bundle.graph_file} has {name} {size}, and its sidecar says {told}.",
                    PROMPTER_BUNDLE.cure,
                )


def _key_names(count: int) -> list[str]:
    return [f"past_key_values.{layer}.key" for layer in range(count)]


class OnnxDecoder:
    """A session and a KV cache as the engine's loop sees them.

    Attributes:
        rows: How many sequences it holds at once.
        row_capacity: Most tokens of a sequence.
        capacity: Most tokens of all sequences; rows share nothing here.
        micro_batch: Most prompt tokens of one `prefill`.
        outputs: Logits of the last `prefill` or `decode`, shape (outputs, vocab).
    """

    def __init__(
        self, bundle: Bundle, settings: DecoderSettings, session: Any, adapter: float = 1.0
    ) -> None:
        """Begin with an empty cache.

        Args:
            bundle: Describes the graph.
            settings: Sizes and devices.
            session: Of `open_graph`; decoders on several threads may share it.
            adapter: What a gate is set to: 1 decodes with ρ_θ, 0 with ρ_sft.
        """
        self._graph = bundle.sidecar.graph
        self._stops = frozenset(bundle.sidecar.tokens.stop)
        self.rows = settings.sequences
        self.row_capacity = self._graph.max_length
        self.capacity = self.row_capacity * self.rows
        self.micro_batch = _CHUNK
        self._slots = SlotMap()
        self._runner = new_runner(session, self._graph, settings.gpu_in_use, adapter)
        self._options = self._runner.options
        self.outputs: NDArray[np.float32] = np.empty((0, self._graph.vocab), np.float32)

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Append prompt tokens to a row; output 0 is the last one's."""
        self._make_room(start + len(tokens), [row])
        self._bring_to_front([row])
        ids = np.array([tokens], np.int64)
        # A copy, because a view would keep the logits of all positions in memory.
        self.outputs = self._run(ids, np.array([start]))[:, -1].copy()

    def decode(self, rows: Sequence[int], tokens: Sequence[int], starts: Sequence[int]) -> None:
        """Append one token to each row; output i belongs to rows[i]."""
        self._make_room(max(starts) + 1, rows)
        self._bring_to_front(rows)
        order = [self._slots.of(row) for row in rows]
        ids = np.empty((len(rows), 1), np.int64)
        lengths = np.empty(len(rows), np.int64)
        ids[order, 0] = tokens
        lengths[order] = starts
        self.outputs = self._run(ids, lengths)[order, -1]

    def interrupt(self) -> None:
        """Stop the `prefill` or `decode` under way, and all until `resume`; from any thread."""
        self._options.terminate = True

    def resume(self) -> None:
        """Let the next `prefill` or `decode` run."""
        self._options.terminate = False

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
        """Forget the end of a row; it is masked, so nothing moves."""
        if length == 0:
            self._slots.drop(row)
        return True

    def release(self, sampler: TokenSource) -> None:
        """Do nothing: samplers are plain Python."""

    def close(self) -> None:
        """Free the cache, and the session if nothing else uses it."""
        del self._runner
        trim_heap()

    def _run(self, ids: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run the graph; what it wrote before it was stopped is behind the ends of the rows."""
        try:
            return self._runner.run(ids, starts)
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            if self._options.terminate:
                raise CallInterruptedError from error
            raise

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
