"""Quantise the weights of a graph to 4 or 8 bits for onnxruntime's MatMulNBits.

Blocks of 32 weights along the input dimension share a scale. Three things differ from the stock
quantisers (measured in docs/export.md):

* 4 bits: MatMulNBits has integer zero points only, which rounds the grid of a block by up to half a
  step; that changes a third of a 135M model's argmax decisions. So the grid runs exactly from the
  block's minimum to its maximum, and extra columns carry what the integer zero point cannot
  express: one per block, multiplied with the sum of the block's inputs. A GGUF of type Q4_1 has the
  same grid and is reproduced exactly.
* The output head and embeddings always have 8 bits, and are stored once when they are tied.
* What an adapter adds to a weight is kept apart, in floats and at its own low rank (see
  `low_rank`): added to the weight, it would be smaller than half a step of the grid, and lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from alignpro_lite.errors import ExportError
from alignpro_lite.export.low_rank import (
    Adapter,
    AdapterChanges,
    Matrix32,
    add_initializer,
    replace_node,
)

BLOCK = 32
HEAD = "lm_head"
_EMBEDDING_TABLE = "embedding_q8"
_DATA_SUFFIX = ".data"
# Rounds activations to 8 bits per block too, which selects the fast kernel on the CPU.
_ACCURACY_LEVEL = 4

Bits = Literal[4, 8]


@dataclass(frozen=True)
class Blocks:
    """Quantised weights.

    Attributes:
        values: Unsigned integers [N, K / 32, 32].
        scales: One per block [N, K / 32].
        zeros: Zero points [N, K / 32]; weight = scale * (value - zero).
        bits: 4 or 8.
    """

    values: NDArray[np.uint8]
    scales: Matrix32
    zeros: NDArray[np.uint8]
    bits: Bits

    def packed_values(self) -> NDArray[np.uint8]:
        """Values as MatMulNBits stores them: [N, K / 32, 4 * bits] bytes."""
        return self.values if self.bits == 8 else _pack_nibbles(self.values)

    def packed_zeros(self) -> NDArray[np.uint8]:
        """Zero points as MatMulNBits stores them: [N, ceil(K / 32 * bits / 8)] bytes."""
        if self.bits == 8:
            return self.zeros
        return _pack_nibbles(np.pad(self.zeros, ((0, 0), (0, self.zeros.shape[1] % 2))))


def quantise_graph(source: Path, destination: Path, bits: Bits, changes: AdapterChanges) -> None:
    """Write a copy of a decoder or encoder graph with quantised weights.

    Args:
        source: The float graph, with its external data.
        destination: The graph to write; its data goes to `<name>.data` in the same folder.
        bits: 4 or 8 for the layers; head and embeddings get 8.
        changes: What an adapter changed; of those weights only the base is quantised.

    Raises:
        ExportError: A weight's input dimension is not a multiple of 32.
    """
    model = ir.load(source)
    rewriter = _Rewriter(model.graph, Adapter(model.graph, changes))
    for node in list(model.graph):
        if node.op_type == "MatMul" and _constant(node.inputs[1]) is not None:
            rewriter.replace_matmul(node, 8 if HEAD in str(node.name) else bits)
    for node in list(model.graph):
        if node.op_type == "Gather" and _is_table(node.inputs[0]):
            rewriter.replace_embedding(node)
    data = destination.name + _DATA_SUFFIX
    ir.save(model, destination, external_data=data, size_threshold_bytes=256)
    if rewriter.tied_to is not None:
        _share_bytes(destination, rewriter.tied_to)


def quantise_exactly(weight: Matrix32) -> tuple[Blocks, Matrix32]:
    """Quantise to 4 bits on the grid from each block's minimum to its maximum.

    Args:
        weight: [N, K].

    Returns:
        The blocks, and the offset of each block [N, K / 32] that integer zero points cannot
        express: weight = scale * (value - zero) + offset.
    """
    blocks = _blocks(weight)
    low = blocks.min(-1)
    scales = _nonzero((blocks.max(-1) - low) / 15)
    values = np.clip(np.round((blocks - low[..., None]) / scales[..., None]), 0, 15)
    zeros = np.clip(np.round(-low / scales), 0, 15)
    quantised = Blocks(values.astype(np.uint8), scales, zeros.astype(np.uint8), 4)
    return quantised, (low + zeros * scales).astype(np.float32)


def quantise_nearest(weight: Matrix32) -> Blocks:
    """Quantise [N, K] to 4 bits with integer zero points, zero always representable."""
    blocks = _blocks(weight)
    low = np.minimum(blocks.min(-1), 0)
    scales = _nonzero((np.maximum(blocks.max(-1), 0) - low) / 15)
    zeros = np.round(-low / scales)
    values = np.clip(np.round(blocks / scales[..., None]) + zeros[..., None], 0, 15)
    return Blocks(values.astype(np.uint8), scales, zeros.astype(np.uint8), 4)


def quantise_symmetric(weight: Matrix32) -> Blocks:
    """Quantise [N, K] to 8 bits symmetrically, the grid of GGUF's Q8_0."""
    blocks = _blocks(weight)
    scales = _nonzero(np.abs(blocks).max(-1) / 127)
    values = np.round(blocks / scales[..., None]) + 128
    return Blocks(values.astype(np.uint8), scales, np.full(scales.shape, 128, np.uint8), 8)


class _Rewriter:
    """Replaces float weights of one graph in place."""

    def __init__(self, graph: ir.Graph, adapter: Adapter) -> None:
        self._graph = graph
        self._adapter = adapter
        self._augmented: dict[str, ir.Value] = {}
        self._head: tuple[Blocks, ir.Value, ir.Value] | None = None
        self.tied_to: str | None = None

    def replace_matmul(self, node: ir.Node, bits: Bits) -> None:
        """Turn a MatMul with a constant weight into MatMulNBits."""
        value = node.inputs[1]
        stored = _constant(value)
        assert value is not None
        assert stored is not None
        graph, inputs = self._graph, node.inputs[0]
        update = self._adapter.updates.get(str(value.name))
        weight = (stored if update is None else update.base).astype(np.float32).T
        if bits == 8:
            blocks = quantise_symmetric(weight)
        else:
            blocks, offsets = quantise_exactly(weight)
            padded = np.pad(offsets, ((0, 0), (0, -offsets.shape[1] % BLOCK)))
            blocks = _append(blocks, quantise_nearest(padded))
            inputs = self._with_block_sums(node, weight.shape[1], stored.dtype)
        columns = weight.shape[1] if bits == 8 else weight.shape[1] * (BLOCK + 1) // BLOCK
        table = add_initializer(graph, f"{value.name}_q{bits}", blocks.packed_values())
        scales = add_initializer(graph, f"{value.name}_scales", blocks.scales.astype(stored.dtype))
        zeros = add_initializer(graph, f"{value.name}_zeros", blocks.packed_zeros())
        if HEAD in str(node.name):
            self._head = (blocks, table, scales)
        quantised = ir.node(
            "MatMulNBits",
            [inputs, table, scales, zeros],
            {
                "K": columns,
                "N": weight.shape[0],
                "bits": bits,
                "block_size": BLOCK,
                "accuracy_level": _ACCURACY_LEVEL,
            },
            domain="com.microsoft",
            name=f"{node.name}_q{bits}",
        )
        new = quantised if update is None else self._adapter.added_to(quantised, node)
        replace_node(graph, node, new)

    def replace_embedding(self, node: ir.Node) -> None:
        """Turn the Gather of an embedding table into GatherBlockQuantized."""
        value = node.inputs[0]
        stored = _constant(value)
        assert value is not None
        assert stored is not None
        blocks = quantise_symmetric(stored.astype(np.float32))
        flat = blocks.values.reshape(stored.shape)
        if self._head and np.array_equal(self._head[0].values, blocks.values):
            _, tied, scales = self._head
            self.tied_to = str(tied.name)
            # The bytes are the head's; their second name is added after saving.
            table = ir.Value(
                name=_EMBEDDING_TABLE,
                shape=ir.Shape(flat.shape),
                type=ir.TensorType(ir.DataType.UINT8),
            )
        else:
            table = add_initializer(self._graph, f"{value.name}_q8", flat)
            scales = add_initializer(
                self._graph, f"{value.name}_scales", blocks.scales.astype(stored.dtype)
            )
        quantised = ir.node(
            "GatherBlockQuantized",
            [table, node.inputs[1], scales],
            {"bits": 8, "block_size": BLOCK, "gather_axis": 0, "quantize_axis": 1},
            domain="com.microsoft",
            name=f"{node.name}_q8",
        )
        replace_node(self._graph, node, quantised)

    def _with_block_sums(self, node: ir.Node, width: int, dtype: np.dtype[np.float32]) -> ir.Value:
        """Append to a MatMul's input [..., K] the sum of each of its blocks: [..., K + K / 32]."""
        inputs = node.inputs[0]
        assert inputs is not None
        name = str(inputs.name)
        if name in self._augmented:
            return self._augmented[name]
        summing = f"block_sums_{width}"
        if summing not in self._graph.initializers:
            add_initializer(
                self._graph,
                summing,
                np.kron(np.eye(width // BLOCK), np.ones((BLOCK, 1))).astype(dtype),
            )
        sums = ir.node(
            "MatMul", [inputs, self._graph.initializers[summing]], name=f"{name}/block_sums"
        )
        joined = ir.node(
            "Concat", [inputs, sums.outputs[0]], {"axis": -1}, name=f"{name}/with_block_sums"
        )
        self._graph.insert_before(node, [sums, joined])
        self._augmented[name] = joined.outputs[0]
        return joined.outputs[0]


def _share_bytes(path: Path, head: str) -> None:
    """Add the embedding table as a second name for the head's bytes in the data file."""
    model = onnx.load(path, load_external_data=False)
    tied = next(tensor for tensor in model.graph.initializer if tensor.name == head)
    table = model.graph.initializer.add()
    table.CopyFrom(tied)
    table.name = _EMBEDDING_TABLE
    table.ClearField("dims")
    table.dims.extend([tied.dims[0], tied.dims[1] * tied.dims[2]])
    onnx.save(model, path)


def _append(first: Blocks, second: Blocks) -> Blocks:
    return Blocks(
        np.concatenate([first.values, second.values], 1),
        np.concatenate([first.scales, second.scales], 1),
        np.concatenate([first.zeros, second.zeros], 1),
        first.bits,
    )


def _blocks(weight: Matrix32) -> Matrix32:
    """Reshape [N, K] to [N, K / 32, 32]."""
    rows, columns = weight.shape
    if columns % BLOCK:
        raise ExportError(
            f"Expected weights whose input width is a multiple of {BLOCK}, found {columns}.",
            "Use --precision fp32 for this model.",
        )
    return weight.reshape(rows, -1, BLOCK)


def _pack_nibbles(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (values[..., 0::2] | (values[..., 1::2] << 4)).astype(np.uint8)


def _nonzero(scales: Matrix32) -> Matrix32:
    """Replace the scale 0 of blocks whose weights are all equal by 1."""
    return np.where(scales == 0, 1, scales).astype(np.float32)


def _constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The float matrix a value stands for, or None when it is computed or of another kind."""
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    array = value.const_value.numpy()
    return array if array.dtype in (np.float32, np.float16) else None


def _is_table(value: ir.Value | None) -> bool:
    """Whether a Gather's data is an embedding table (not a shape or a rotary cache)."""
    return value is not None and "embed" in str(value.name) and _constant(value) is not None
