"""Assemble a bundle: the data of a graph without weights, its tokenizer and its sidecar."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.assembly.factors import Factors, fused, read_factors
from alignpro_lite.assembly.graphs import (
    FactorsPiece,
    GraphManifest,
    Piece,
    ProductPiece,
    RotaryPiece,
    Rows,
    VectorPiece,
)
from alignpro_lite.assembly.packing import Matrix32, Packing, quantise_product
from alignpro_lite.assembly.rotary import rotary_tables
from alignpro_lite.errors import BundleError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.gguf.tokenizer import byte_level_bpe, put_first
from alignpro_lite.gguf.weights import GgufWeights
from alignpro_lite.registry.storage import OnProgress, Progress, require_space

DATA_SUFFIX = ".data"
_ROWS_TOGETHER = 4096
"""Of a quantised weight: a head of 150,000 rows takes half a gigabyte in floats."""

Placed = Iterator[tuple[int, NDArray[np.generic]]]
"""Arrays, each with its offset in the data."""


@dataclass(frozen=True)
class Parts:
    """What a graph without weights is filled from.

    Attributes:
        shell: The folder of the graph.
        manifest: What its data are made of.
        gguf: The file of the base model.
        adapter: The folder of the adapter, or None.
    """

    shell: Path
    manifest: GraphManifest
    gguf: Path
    adapter: Path | None


def fill_graph(parts: Parts, folder: Path, on_progress: OnProgress) -> None:
    """Write the graph, its data and the tokenizer into an empty folder.

    Args:
        parts: What they are made of.
        folder: Where they go.
        on_progress: Told how many bytes of the data are written.

    Raises:
        BundleError: The adapter is not the one that the graph was made with.
        ModelFileError: The GGUF file is not the one that the graph was made from.
        RegistryError: The disk is too small.
    """
    manifest = parts.manifest
    require_space(folder, manifest.n_bytes)
    header = read_header(parts.gguf)
    tokenizer = byte_level_bpe(header)
    if manifest.tokens.bos is not None:
        put_first(tokenizer, manifest.tokens.bos)
    tokenizer.save(str(folder / manifest.tokens.file))
    name = manifest.graph.file
    shutil.copyfile(parts.shell / name, folder / name)
    filling = _Filling(GgufWeights(header), read_factors(parts.adapter) if parts.adapter else {})
    with (folder / (name + DATA_SUFFIX)).open("wb") as file:
        file.truncate(manifest.n_bytes)
        _write(file, manifest, filling.placed, on_progress)


def _write(
    file: BinaryIO,
    manifest: GraphManifest,
    placed: Callable[[Piece], Placed],
    on_progress: OnProgress,
) -> None:
    done = 0
    for piece in manifest.pieces:
        for offset, array in placed(piece):
            file.seek(offset)
            done += file.write(np.ascontiguousarray(array).tobytes())
            on_progress(Progress("assembling the prompter", done, manifest.n_bytes, "assembling"))


class _Filling:
    """Makes the pieces of one graph."""

    def __init__(self, weights: GgufWeights, factors: Mapping[str, Factors]) -> None:
        self._weights = weights
        self._factors = factors

    def placed(self, piece: Piece) -> Placed:
        """The arrays of a piece."""
        match piece:
            case VectorPiece(tensors, offset):
                yield offset, np.concatenate([self._weights.read(name) for name in tensors])
            case RotaryPiece(base, length, width, cos, sin):
                yield from zip((cos, sin), rotary_tables(base, length, width), strict=True)
            case FactorsPiece(modules, left, right):
                update = fused([self._factors_of(module) for module in modules])
                yield from ((left, update.left), (right, update.right))
            case ProductPiece():
                yield from self._product(piece)

    def _product(self, piece: ProductPiece) -> Placed:
        packing = Packing(piece.bits, piece.block)
        offsets = [piece.values, piece.scales, piece.zeros]
        for weight in self._rows(piece.rows):
            blocks = quantise_product(weight, packing)
            arrays: tuple[NDArray[np.generic], ...] = (
                blocks.packed_values(),
                blocks.scales,
                blocks.packed_zeros(),
            )
            for place, array in enumerate(arrays):
                offset = offsets[place]
                if offset is not None:
                    yield offset, array
                    offsets[place] = offset + array.nbytes

    def _factors_of(self, module: str) -> Factors:
        if module not in self._factors:
            raise BundleError(
                f"The adapter that the graph was made with has an update of {module}, found none.",
                "Its adapter_config.json was changed: restore it, or use "
                "`alignpro-lite export prompter`.",
            )
        return self._factors[module]

    def _rows(self, sources: tuple[Rows, ...]) -> Iterator[Matrix32]:
        """The rows of all tensors, some of them at a time."""
        for source in sources:
            if source.heads is not None:
                yield _halves(self._weights.read(source.tensor), source.heads)
                continue
            count = self._weights.row_count(source.tensor)
            for first in range(0, count, _ROWS_TOGETHER):
                last = min(first + _ROWS_TOGETHER, count)
                yield self._weights.read(source.tensor, first, last)


def _halves(weight: Matrix32, heads: int) -> Matrix32:
    """Put the rotary halves of each head one after the other, which llama.cpp interleaves."""
    paired = weight.reshape(heads, -1, 2, weight.shape[1])
    return paired.swapaxes(1, 2).reshape(weight.shape)
