"""A graph without weights: the ONNX file that an export wrote, and what its data are made of.

The data of an ONNX graph are in a file of their own. `graph.json` says of every piece of that file
what it is made of: which tensors of a GGUF file, which factors of an adapter, or a formula.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from alignpro_lite.assembly.packing import Bits, BlockSize
from alignpro_lite.errors import BundleError
from alignpro_lite.prompter.bundle import Graph, Parity, Size, Tokens
from alignpro_lite.registry.entries import Sha256
from alignpro_lite.registry.record import Count, Origin, Record, parse_written, read_json

MANIFEST = "graph.json"
FORMAT = 1
_CURE = "Install alignpro-lite again."

Offset = Annotated[int, Meta(ge=0)]
"""Bytes from the start of the data."""


class VectorPiece(Record, tag="vector", tag_field="kind"):
    """Tensors as they are, in float32, one after the other.

    Attributes:
        tensors: Names in the GGUF file.
        offset: Bytes from the start of the data.
    """

    tensors: tuple[str, ...]
    offset: Offset


class RotaryPiece(Record, tag="rotary", tag_field="kind"):
    """The tables of rotary positions, see `rotary_tables`.

    Attributes:
        base: The frequency base.
        length: Positions.
        width: Angles of each.
        cos: Bytes from the start of the data to the cosines.
        sin: Likewise to the sines.
    """

    base: float
    length: Size
    width: Size
    cos: Offset
    sin: Offset


class Rows(Record):
    """A tensor whose rows become rows of a product.

    Attributes:
        tensor: Its name in the GGUF file.
        heads: How many heads' rotary halves the file interleaves, as llama.cpp wants them for
            some architectures; None if it does not.
    """

    tensor: str
    heads: Size | None


class ProductPiece(Record, tag="product", tag_field="kind"):
    """A quantised weight, see `quantise_product`.

    Attributes:
        rows: What it is made of, one below the other.
        bits: Of each value.
        block: How many values share a scale.
        values: Bytes from the start of the data to the packed values.
        scales: Likewise to the scales, float32.
        zeros: Likewise to the packed zero points; None if the graph has none.
    """

    rows: tuple[Rows, ...]
    bits: Bits
    block: BlockSize
    values: Offset
    scales: Offset
    zeros: Offset | None


class FactorsPiece(Record, tag="factors", tag_field="kind"):
    """The factors of an adapter, in float32, see `read_factors`.

    Attributes:
        modules: Whose; several are fused.
        left: Bytes from the start of the data.
        right: Likewise.
    """

    modules: tuple[str, ...]
    left: Offset
    right: Offset


Piece = VectorPiece | RotaryPiece | ProductPiece | FactorsPiece


class GraphManifest(Record):
    """What a graph is made of, and what its bundle's sidecar says of it.

    Attributes:
        format: Version of this description.
        source: sha256 of the GGUF file of the base model.
        adapter: sha256 of the adapter's weights, None for the base itself.
        graph: The decoder.
        tokens: The tokenizer.
        parity: The comparison with torch, made when the graph was exported.
        n_bytes: Size of the data.
        pieces: Of the data; what lies between them is zero.
    """

    format: int
    source: Sha256
    adapter: Sha256 | None
    graph: Graph
    tokens: Tokens
    parity: Parity
    n_bytes: Count
    pieces: tuple[Piece, ...]


def read_manifest(folder: Path) -> GraphManifest:
    """Read what a graph without weights is made of.

    Raises:
        BundleError: The file is missing, damaged or of an unknown format.
    """
    origin = Origin(folder / MANIFEST, BundleError, _CURE)
    raw = read_json(origin, "graph without weights")
    if raw.get("format") != FORMAT:
        raise origin.refusal(f" must have format {FORMAT}, found {raw.get('format')!r}.", _CURE)
    return parse_written(GraphManifest, raw, origin)
