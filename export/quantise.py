"""Quantise the weights of a graph to 4 or 8 bits for onnxruntime's MatMulNBits.

How a weight is stored says `assembly.packing`; which weights have 4 bits is decided here, by
`mixed_bits`. The output head and embeddings always have 8 in blocks of 32, and are stored once when
they are tied.
What an adapter adds to a weight is kept apart, in floats and at its own low rank (see `low_rank`):
added to the weight, it would be smaller than half a step of the grid, and lost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from alignpro_lite.assembly.packing import (
    BLOCK,
    Q4,
    Q8,
    Q8_WIDE,
    Blocks,
    Matrix32,
    Packing,
    is_on_grid,
    quantise_product,
    quantise_symmetric,
)
from alignpro_lite.export.low_rank import Adapter, AdapterChanges, add_initializer, replace_node

HEAD = "lm_head"
_EMBEDDING_TABLE = "embedding_q8"
_DATA_SUFFIX = ".data"
# Rounds activations to 8 bits per block too, which selects the fast kernel on the CPU.
_ACCURACY_LEVEL = 4
_CONSTANT_BYTES = 128
"""What is smaller stays in the ONNX file: shapes and numbers of the graph, but no weights."""

ChoosePacking = Callable[[str, Matrix32], Packing]
"""Chooses how a layer's weight is stored by the name of its node and its values [N, K]."""

MIXES: tuple[tuple[str, ...], ...] = (("gate_proj", "up_proj", "gate_up_proj"), ())
"""What is rounded to 4 bits though it has more, by parts of the names of nodes; coarsest first.

The widest products stand it best. A small model stands nothing of it: see docs/export.md."""


def eight_bits(name: str, weight: Matrix32) -> Packing:
    """8 bits in blocks of 32 for every weight."""
    return Q8


def mixed_bits(rounded: tuple[str, ...]) -> ChoosePacking:
    """4 bits for weights that have no more anyway and for those to be rounded, 8 for the others.

    The blocks of the others have 64 values where the width allows it.

    Args:
        rounded: One of `MIXES`.
    """

    def choose(name: str, weight: Matrix32) -> Packing:
        if any(part in name for part in rounded) or is_on_grid(weight):
            return Q4
        return Q8 if weight.shape[1] % Q8_WIDE.block else Q8_WIDE

    return choose


def quantise_graph(
    source: Path, destination: Path, changes: AdapterChanges, choose: ChoosePacking
) -> None:
    """Write a copy of a decoder or encoder graph with quantised weights.

    Args:
        source: The float graph, with its external data.
        destination: The graph to write; its data goes to `<name>.data` in the same folder.
        changes: What an adapter changed; of those weights only the base is quantised.
        choose: How a layer's weights are stored; head and embeddings get 8 bits.

    Raises:
        ExportError: A weight's input dimension is not a multiple of 32.
    """
    model = ir.load(source)
    rewriter = _Rewriter(model.graph, Adapter(model.graph, changes), choose)
    for node in list(model.graph):
        if node.op_type == "MatMul" and _constant(node.inputs[1]) is not None:
            rewriter.replace_matmul(node)
    for node in list(model.graph):
        if node.op_type == "Gather" and _is_table(node.inputs[0]):
            rewriter.replace_embedding(node)
    data = destination.name + _DATA_SUFFIX
    ir.save(model, destination, external_data=data, size_threshold_bytes=_CONSTANT_BYTES)
    if rewriter.tied_to is not None:
        _share_bytes(destination, rewriter.tied_to)


class _Rewriter:
    """Replaces float weights of one graph in place."""

    def __init__(self, graph: ir.Graph, adapter: Adapter, choose: ChoosePacking) -> None:
        self._graph = graph
        self._adapter = adapter
        self._choose = choose
        self._augmented: dict[str, ir.Value] = {}
        self._head: tuple[Blocks, ir.Value, ir.Value] | None = None
        self.tied_to: str | None = None

    def replace_matmul(self, node: ir.Node) -> None:
        """Turn a MatMul with a constant weight into MatMulNBits."""
        value = node.inputs[1]
        stored = _constant(value)
        assert value is not None
        assert stored is not None
        graph, inputs = self._graph, node.inputs[0]
        update = self._adapter.updates.get(str(value.name))
        weight = (stored if update is None else update.base).astype(np.float32).T
        is_head = HEAD in str(node.name)
        packing = Q8 if is_head else self._choose(str(node.name), weight)
        blocks, columns = quantise_product(weight, packing), weight.shape[1]
        if packing.bits == 4:
            inputs = self._with_block_sums(node, columns)
            columns += columns // BLOCK
        table = add_initializer(graph, f"{value.name}_q{packing.bits}", blocks.packed_values())
        scales = add_initializer(graph, f"{value.name}_scales", blocks.scales.astype(stored.dtype))
        zeros = add_initializer(graph, f"{value.name}_zeros", blocks.packed_zeros())
        if is_head:
            self._head = (blocks, table, scales)
        quantised = ir.node(
            "MatMulNBits",
            [inputs, table, scales, zeros],
            {
                "K": columns,
                "N": weight.shape[0],
                "bits": packing.bits,
                "block_size": packing.block,
                "accuracy_level": _ACCURACY_LEVEL,
            },
            domain="com.microsoft",
            name=f"{node.name}_q{packing.bits}",
        )
        new = quantised if update is None else self._adapter.added_to(quantised, node)
        replace_node(graph, node, new)

    def replace_embedding(self, node: ir.Node) -> None:
        """Turn the Gather of an embedding table into GatherBlockQuantized."""
        value = node.inputs[0]
        stored = _constant(value)
        assert value is not None
        assert stored is not None
        blocks = quantise_symmetric(stored.astype(np.float32), Q8.block)
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
            {"bits": 8, "block_size": Q8.block, "gather_axis": 0, "quantize_axis": 1},
            domain="com.microsoft",
            name=f"{node.name}_q8",
        )
        replace_node(self._graph, node, quantised)

    def _with_block_sums(self, node: ir.Node, width: int) -> ir.Value:
        """Append to a MatMul's input [B, S, K] the sum of each of its blocks: [B, S, K + K / 32].

        Reshaping is free and summing takes 1 µs; a product with a matrix of ones takes as long at
        K = 576, but 40 µs at K = 4864.
        """
        inputs = node.inputs[0]
        assert inputs is not None
        name = str(inputs.name)
        if name not in self._augmented:
            cut = ir.node(
                "Reshape",
                [inputs, self._integers(f"blocks_of_{width}", [0, 0, width // BLOCK, BLOCK])],
                name=f"{name}/blocks",
            )
            sums = ir.node(
                "ReduceSum",
                [cut.outputs[0], self._integers("within_blocks", [-1])],
                {"keepdims": 0},
                name=f"{name}/block_sums",
            )
            joined = ir.node(
                "Concat", [inputs, sums.outputs[0]], {"axis": -1}, name=f"{name}/with_block_sums"
            )
            self._graph.insert_before(node, [cut, sums, joined])
            self._augmented[name] = joined.outputs[0]
        return self._augmented[name]

    def _integers(self, name: str, values: list[int]) -> ir.Value:
        """A constant of the graph, made when it is first asked for."""
        if name not in self._graph.initializers:
            add_initializer(self._graph, name, np.array(values, np.int64))
        return self._graph.initializers[name]


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


def _constant(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The float matrix a value stands for, or None when it is computed or of another kind."""
    if value is None or value.const_value is None or len(value.const_value.shape) != 2:
        return None
    array = value.const_value.numpy()
    return array if array.dtype in (np.float32, np.float16) else None


def _is_table(value: ir.Value | None) -> bool:
    """Whether a Gather's data is an embedding table (not a shape or a rotary cache)."""
    return value is not None and "embed" in str(value.name) and _constant(value) is not None
