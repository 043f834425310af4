"""The rotary tables of a graph, made the same on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from alignpro_lite.assembly.rotary import rotary_tables

TABLES = ("cos_cache", "sin_cache")
"""Names of the cosines and sines in a fast decoder graph."""
_TOLERANCE = 0.01
"""Of a table of another formula: at position 32,000, a last bit of a step is 0.002."""


def settle_rotary(graph: Path, base: float) -> None:
    """Write the tables of a graph anew where its positions are not rescaled.

    torch computes them with what vector instructions there are, so that their last bits differ
    between machines, and a bundle could not be assembled to equal another.

    Args:
        graph: A float graph, with its data in a file of their own.
        base: The frequency base of the model.
    """
    model = onnx.load(graph, load_external_data=False)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    if not stored.keys() >= set(TABLES):
        return
    length, width = stored[TABLES[0]].dims
    for name, table in zip(TABLES, rotary_tables(base, length, width), strict=True):
        place = {entry.key: entry.value for entry in stored[name].external_data}
        kind = np.float32 if stored[name].data_type == onnx.TensorProto.FLOAT else np.float16
        data = np.memmap(
            graph.with_name(place["location"]),
            kind,
            "r+",
            offset=int(place.get("offset", 0)),
            shape=(length, width),
        )
        if not np.allclose(data, table, atol=_TOLERANCE):
            return
        data[:] = table
        data.flush()
