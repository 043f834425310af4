"""Change GGUF files for tests: read one whole, alter its metadata and tensors, write it again."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignpro_lite.gguf.header import TENSOR_TYPES

U16, U32, I32, F32, BOOL, TEXT, ARRAY = 2, 4, 5, 6, 7, 8, 9
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


@dataclass
class EditableTensor:
    name: bytes
    shape: list[int]
    type: int
    data: bytes


@dataclass
class EditableGguf:
    """A whole file.

    Attributes:
        metadata: Type and value by key; the value of an array is its item type and its items.
        tensors: In the order of the file; data are cut or padded to what their shape needs.
    """

    metadata: dict[bytes, tuple[int, Any]] = field(default_factory=dict)
    tensors: list[EditableTensor] = field(default_factory=list)

    def items(self, key: bytes) -> list[Any]:
        """The items of an array, to be read or changed."""
        items: list[Any] = self.metadata[key][1][1]
        return items

    def put_array(self, key: bytes, item_type: int, items: list[Any]) -> None:
        self.metadata[key] = (ARRAY, (item_type, items))

    def write(self, path: Path) -> Path:
        counts = struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))
        parts = [b"GGUF", counts]
        parts += [
            _text(key) + struct.pack("<I", kind) + _packed(kind, value)
            for key, (kind, value) in self.metadata.items()
        ]
        offset = 0
        for tensor in self.tensors:
            shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            parts += [_text(tensor.name), shape, struct.pack("<IQ", tensor.type, offset)]
            offset += len(_fitted(tensor))
        parts.append(bytes(-sum(map(len, parts)) % 32))
        path.write_bytes(b"".join([*parts, *map(_fitted, self.tensors)]))
        return path


def read(path: Path) -> EditableGguf:
    data, offset = path.read_bytes(), 4

    def number(layout: str) -> Any:
        nonlocal offset
        (value,) = struct.unpack_from(f"<{layout}", data, offset)
        offset += struct.calcsize(f"<{layout}")
        return value

    def text() -> bytes:
        nonlocal offset
        length = number("Q")
        offset += length
        return data[offset - length : offset]

    def value(kind: int) -> Any:
        if kind == TEXT:
            return text()
        if kind != ARRAY:
            return number(_NUMBERS[kind])
        item_type, count = number("I"), number("Q")
        return item_type, [value(item_type) for _ in range(count)]

    number("I")
    n_tensors, n_pairs = number("Q"), number("Q")
    model = EditableGguf()
    for _ in range(n_pairs):
        key, kind = text(), number("I")
        model.metadata[key] = (kind, value(kind))
    places = []
    for _ in range(n_tensors):
        name, n_dimensions = text(), number("I")
        shape = [number("Q") for _ in range(n_dimensions)]
        model.tensors.append(EditableTensor(name, shape, number("I"), b""))
        places.append(number("Q"))
    start = offset + -offset % 32
    for tensor, place in zip(model.tensors, places, strict=True):
        tensor.data = data[start + place : start + place + _n_bytes(tensor)]
    return model


def make_sentencepiece(model: EditableGguf, words: list[bytes]) -> None:
    """Give a model a SentencePiece vocabulary of the same size: special tokens, bytes and words."""
    prefix = b"tokenizer.ggml."
    size = len(model.items(prefix + b"tokens"))
    special = model.items(prefix + b"tokens")[:3]
    tokens = [*special, *(b"<0x%02X>" % byte for byte in range(256)), "\u2581".encode(), *words]
    types = [3] * 3 + [6] * 256 + [1] * (size - 259)
    tokens += [b"word%d" % place for place in range(len(tokens), size)]
    model.metadata[prefix + b"model"] = (TEXT, b"llama")
    model.put_array(prefix + b"tokens", TEXT, tokens)
    model.put_array(prefix + b"token_type", I32, types)
    model.put_array(prefix + b"scores", F32, [-float(place) for place in range(size)])
    del model.metadata[prefix + b"merges"]


def _n_bytes(tensor: EditableTensor) -> int:
    _, block, block_bytes = TENSOR_TYPES[tensor.type]
    return math.prod(tensor.shape) // block * block_bytes


def _fitted(tensor: EditableTensor) -> bytes:
    n_bytes = _n_bytes(tensor)
    return tensor.data[:n_bytes].ljust(n_bytes + -n_bytes % 32, b"\0")


def _packed(kind: int, value: Any) -> bytes:
    if kind == TEXT:
        return _text(value)
    if kind != ARRAY:
        return struct.pack(f"<{_NUMBERS[kind]}", value)
    item_type, items = value
    head = struct.pack("<IQ", item_type, len(items))
    return head + b"".join(_packed(item_type, item) for item in items)


def _text(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text
