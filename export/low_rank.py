"""What an adapter changed in a graph: for each weight the base, and the update at its own rank.

The weights of a base that was read from a quantised file are on that file's grid. An adapter's
update is often smaller than half a step of the grid, so that quantising the sum gives the base
back: the default prompter's adapter kept 0.15 of its 1.9 nats from the base that way. Kept apart,
it loses nothing.

Kept apart, it also makes one graph serve as two models: a gate, an input of one number, multiplies
what the adapter adds. At 1 the graph is the trained prompter ρ_θ, at 0 ρ_sft. That is the base
under the same template; or, where the first ranks of the adapter are those of a reference, the base
with these, which the gate leaves on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from alignpro_lite.assembly.factors import Factors, fused
from alignpro_lite.assembly.names import modules_of
from alignpro_lite.assembly.packing import Matrix32

GATE = "adapter_gate"
"""Name of the input that switches the adapter: shape (1,), of the type of the activations."""

_LOST = 1e-3
"""Share of the update's norm that its factors may lose."""
_FIRST_RANK = 32


@dataclass(frozen=True)
class Update:
    """A weight [K, N] as base + left right.

    Attributes:
        base: [K, N].
        left: [K, r].
        right: [r, N].
        learned: [r], bool: which ranks are ρ_θ's alone. The others are those of ρ_sft too.
    """

    base: Matrix32
    left: Matrix32
    right: Matrix32
    learned: NDArray[np.bool_]


@dataclass(frozen=True)
class AdapterChanges:
    """What an adapter changed in a graph.

    Attributes:
        updates: By name, the weights that differ by an update of low rank.
        is_whole: Whether these are all changes, and it is known which of their ranks ρ_sft has, so
            that without the others the graph is ρ_sft. False if a weight was trained at full rank.
    """

    updates: Mapping[str, Update]
    is_whole: bool


UNCHANGED = AdapterChanges({}, is_whole=True)
"""The changes of a graph without an adapter."""


def adapter_changes(
    base: Path, tuned: Path, known: Mapping[str, Factors], reference_rank: int
) -> AdapterChanges:
    """Compare the weights of two graphs of one architecture.

    Args:
        base: The float graph of the base model.
        tuned: The float graph of the same model with its adapter merged.
        known: Factors of the adapter by module. Where they make up what changed, they are taken as
            they are: exact, and the same on every machine.
        reference_rank: Leading ranks of each module that ρ_sft has too.
    """
    before, after = _initializers(base), _initializers(tuned)
    products = _product_weights(tuned)
    updates: dict[str, Update] = {}
    is_whole = before.keys() == after.keys()
    for name, weight in after.items():
        old = before.get(name)
        if old is None or np.array_equal(old, weight):
            continue
        update = None
        if name in products and old.shape == weight.shape and old.ndim == 2:
            parts = [known[module] for module in modules_of(name) if module in known]
            is_known = len(parts) == len(modules_of(name)) > 0
            update = _known(old, weight, parts, reference_rank) if is_known else None
            if update is None:
                update = _found(old, weight)
                is_whole &= reference_rank == 0
        if update is None:
            is_whole = False
        else:
            updates[name] = update
    return AdapterChanges(updates, is_whole)


def _known(
    old: NDArray[np.generic],
    new: NDArray[np.generic],
    parts: Sequence[Factors],
    reference_rank: int,
) -> Update | None:
    """A change [K, N] by the adapter's own factors, None if they do not make it up."""
    update = fused(parts)
    if (update.left.shape[0], update.right.shape[1]) != old.shape:
        return None
    change = new.astype(np.float32) - old.astype(np.float32)
    lost = float(np.linalg.norm(change - update.left @ update.right))
    if lost > _LOST * float(np.linalg.norm(change)):
        return None
    learned = [np.arange(part.left.shape[1]) >= reference_rank for part in parts]
    return Update(old.astype(np.float32), update.left, update.right, np.concatenate(learned))


def _found(old: NDArray[np.generic], new: NDArray[np.generic]) -> Update | None:
    """A change [K, N] by factors of its own, None if it is not of low rank."""
    factors = factorise(new.astype(np.float32) - old.astype(np.float32))
    if factors is None:
        return None
    return Update(old.astype(np.float32), *factors, np.ones(factors[0].shape[1], bool))


class Adapter:
    """Adds updates, and the gate that switches them, to a graph under construction."""

    def __init__(self, graph: ir.Graph, changes: AdapterChanges) -> None:
        self.updates = changes.updates
        self._graph = graph
        self._gated = changes.is_whole and bool(changes.updates)
        self._gate: ir.Value | None = None
        self._gates: dict[bytes, ir.Value] = {}

    def added_to(self, product: ir.Node, node: ir.Node) -> ir.Node:
        """Add (x left) right to what the base makes of x.

        Args:
            product: The product of x and the base; inserted before `node`.
            node: The MatMul of x with a weight that has an update; it stays in place.

        Returns:
            The sum, which the caller inserts.
        """
        weight, inputs, name = node.inputs[1], node.inputs[0], str(node.name)
        assert weight is not None
        assert weight.const_value is not None
        update, dtype = self.updates[str(weight.name)], weight.const_value.numpy().dtype
        left = add_initializer(self._graph, f"{name}/left", update.left.astype(dtype))
        right = add_initializer(self._graph, f"{name}/right", update.right.astype(dtype))
        down = ir.node("MatMul", [inputs, left], name=f"{name}/down")
        added = [product, down]
        if self._gated and update.learned.any():
            # Between the factors, where the adapter's rank makes it cheapest.
            gate = self._gate_of(update.learned, dtype, node)
            added.append(ir.node("Mul", [down.outputs[0], gate], name=f"{name}/gated"))
        added.append(ir.node("MatMul", [added[-1].outputs[0], right], name=f"{name}/up"))
        self._graph.insert_before(node, added)
        return ir.node("Add", [product.outputs[0], added[-1].outputs[0]], name=f"{name}/updated")

    def _gate_of(
        self, learned: NDArray[np.bool_], dtype: np.dtype[np.generic], node: ir.Node
    ) -> ir.Value:
        """What ranks are multiplied by: the gate, and 1 where ρ_sft has them too; shape (r,)."""
        if self._gate is None:
            kind = ir.TensorType(ir.DataType.from_numpy(dtype))
            self._gate = ir.Value(name=GATE, shape=ir.Shape([1]), type=kind)
            self._graph.inputs.append(self._gate)
        if learned.all():
            return self._gate
        layout = learned.tobytes()
        if layout not in self._gates:
            name = f"{GATE}/{len(self._gates)}"
            mask = add_initializer(self._graph, f"{name}/learned", learned)
            open_gate = add_initializer(self._graph, f"{name}/open", np.ones(1, dtype))
            gates = ir.node("Where", [mask, self._gate, open_gate], name=name)
            self._graph.insert_before(node, gates)
            self._gates[layout] = gates.outputs[0]
        return self._gates[layout]


def add_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add a constant to a graph."""
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    graph.register_initializer(value)
    return value


def replace_node(graph: ir.Graph, old: ir.Node, new: ir.Node) -> None:
    """Replace a node by another; a weight that is no longer used is dropped."""
    weight = old.inputs[1] if old.op_type == "MatMul" else old.inputs[0]
    before, after = old.outputs[0], new.outputs[0]
    after.shape, after.type = before.shape, before.type
    graph.insert_after(old, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    name, before.name = before.name, None
    after.name = name
    graph.remove(old, safe=True)
    if weight is not None and not weight.uses():
        graph.initializers.pop(str(weight.name), None)


def write_float_graph(source: Path, destination: Path, changes: AdapterChanges) -> None:
    """Write a copy of a float graph that keeps its updates apart.

    Args:
        source: The graph of the tuned model.
        destination: The graph to write; its data goes to `<name>.data` in the same folder.
        changes: What the adapter changed.
    """
    model = ir.load(source)
    adapter = Adapter(model.graph, changes)
    for node in list(model.graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is None or str(weight.name) not in adapter.updates:
            continue
        assert weight.const_value is not None
        stored = weight.const_value.numpy().dtype
        base = adapter.updates[str(weight.name)].base.astype(stored)
        value = add_initializer(model.graph, f"{weight.name}/base", base)
        product = ir.node("MatMul", [node.inputs[0], value], name=f"{node.name}/base")
        replace_node(model.graph, node, adapter.added_to(product, node))
    ir.save(model, destination, external_data=f"{destination.name}.data", size_threshold_bytes=256)


def factorise(change: Matrix32) -> tuple[Matrix32, Matrix32] | None:
    """Factors of a matrix of low rank, by a random range finder (Halko, Martinsson, Tropp 2011).

    Args:
        change: [K, N].

    Returns:
        left [K, r] and right [r, N], or None if it is zero or not of low rank.
    """
    norm = float(np.linalg.norm(change))
    if norm == 0:
        return None
    random = np.random.default_rng(0)
    most = min(change.shape) // 2
    rank = min(_FIRST_RANK, most)
    while 0 < rank <= most:
        probes = random.standard_normal((change.shape[1], rank), dtype=np.float32)
        basis = np.linalg.qr(change @ probes)[0]
        rest = basis.T @ change
        if float(np.linalg.norm(change - basis @ rest)) <= _LOST * norm:
            return _trimmed(basis, rest, _LOST * norm)
        rank *= 2
    return None


def _trimmed(basis: Matrix32, rest: Matrix32, lost: float) -> tuple[Matrix32, Matrix32]:
    """Drop directions that do not contribute."""
    inner, sizes, right = np.linalg.svd(rest, full_matrices=False)
    tail = np.sqrt(np.cumsum(sizes[::-1] ** 2)[::-1])  # norm of what each cut would drop
    kept = max(1, int((tail > lost).sum()))
    left: Matrix32 = (basis @ inner[:, :kept] * sizes[:kept]).astype(np.float32)
    return left, right[:kept].astype(np.float32)


def _initializers(graph: Path) -> dict[str, NDArray[np.generic]]:
    values = ir.load(graph).graph.initializers.values()
    return {
        str(value.name): value.const_value.numpy()
        for value in values
        if value.const_value is not None
    }


def _product_weights(graph: Path) -> set[str]:
    """Names of the constants that a MatMul multiplies by."""
    products = (node for node in ir.load(graph).graph if node.op_type == "MatMul")
    return {str(node.inputs[1].name) for node in products if node.inputs[1] is not None}
