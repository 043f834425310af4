"""Which other files an ONNX graph takes its weights from, without loading it.

A graph names files that onnxruntime then opens. Those that the sidecar of a bundle does not list
have no digest, and may lie anywhere.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection, Iterator
from pathlib import Path

from alignpro_lite.errors import BundleError

_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "tensor": {13: "entry"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
}
"""Fields of onnx.proto that hold a message which may name a file somewhere inside, by number."""
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED_64: 8, _FIXED_32: 4}


def require_listed(graph: Path, files: Collection[str], cure: str) -> None:
    """Refuse a graph that takes weights from files without a digest.

    Args:
        graph: The .onnx file.
        files: Names of the files beside it that have one.
        cure: What the user can do about it.

    Raises:
        BundleError: It names another file, or is not an ONNX graph.
    """
    if graph.stat().st_size == 0:
        raise BundleError(f"{graph} is empty.", cure)
    with graph.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        try:
            named = set(_data_files(raw))
        except (IndexError, ValueError) as error:
            raise BundleError(f"{graph} is not an ONNX graph ({error}).", cure) from error
    for name in sorted(named - set(files)):
        raise BundleError(f"{graph} takes weights from {name!r}, which has no digest.", cure)


def _data_files(raw: mmap.mmap) -> Iterator[str]:
    """Names of the files that tensors anywhere in a model are in."""
    left = [("model", 0, len(raw))]
    while left:
        kind, start, end = left.pop()
        entry: dict[int, bytes] = {}
        for number, begins, ends in _fields(raw, start, end):
            if kind == "entry":
                entry[number] = raw[begins:ends]
            elif part := _PARTS[kind].get(number):
                left.append((part, begins, ends))
        if entry.get(1) == b"location":
            yield entry.get(2, b"").decode()


def _fields(raw: mmap.mmap, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a message that is a text or a message."""
    while place < end:
        tag, place = _varint(raw, place)
        wire = tag & 7
        if wire == _VARINT:
            _, place = _varint(raw, place)
        elif wire == _BYTES:
            size, place = _varint(raw, place)
            yield tag >> 3, place, place + size
            place += size
        elif wire in _FIXED_BYTES:
            place += _FIXED_BYTES[wire]
        else:
            raise ValueError(f"wire type {wire}")
    if place != end:
        raise ValueError("a field is longer than what holds it")


def _varint(raw: mmap.mmap, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, least first, and the place behind it."""
    value = shift = 0
    while True:
        byte = raw[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than ten bytes")
