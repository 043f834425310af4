"""Read the header of a GGUF file: which model it holds, without loading it.

A header is small (key-value pairs and one line per tensor), so everything that planning and error
messages need is known in milliseconds, before any weights are read.

Every count and length is checked against the bytes that are left before it is used, and a header
is never longer than `MAX_HEADER_BYTES`, so a damaged or hostile file costs neither memory nor time.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.header import (
    MAX_LAYERS,
    TENSOR_TYPES,
    TEXT_MODEL_CURE,
    WHOLE_FILE_CURE,
    ArraySummary,
    GgufFile,
    MetadataValue,
    Number,
    Tensor,
    clipped,
    is_count,
)

T = TypeVar("T")

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

MAX_HEADER_BYTES = 1 << 26
"""Four times the header of the largest vocabularies. It bounds time and memory: a file may claim
gigabytes of text that take no room on its disk."""
MAX_TEXTS = 1 << 21
"""In all arrays together; the largest vocabularies have 800,000 tokens and merges."""
MAX_PAIRS = 1 << 12
MAX_TENSORS = 1 << 16
MAX_DIMENSIONS = 4
MAX_PARTS = (1 << 16) - 1

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_NUMBERS: Mapping[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U16_TYPE = 2
_STRING = 8
_ARRAY = 9
_U16_KEYS = ("split.no", "split.count")
"""llama.cpp ends the process if one of them has another type in a later part."""

_FOREIGN_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint or a wheel"),
    (b"version https://git-lfs", "a git-lfs pointer instead of the file"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"lmgg", "the legacy GGML format"),
    (b"fmgg", "the legacy GGML format"),
    (b"tjgg", "the legacy GGML format"),
    (b"algg", "a legacy GGML adapter"),
    (b"\x80\x02", "a Python pickle, such as an old PyTorch checkpoint"),
    (b"\0\0\0\0\0\0\0\0", "zeros, as in an unfinished download"),
)


def read_header(path: Path) -> GgufFile:
    """Read the header of a GGUF file, and of its other parts when it is the first of several.

    The file holds every byte of weights that the header promises; their values are not read.

    Raises:
        ModelFileError: The file is missing, empty, cut off, damaged or not a GGUF file.
    """
    first = _read_part(path)
    parts = [first, *map(_read_part, _other_parts(first))]
    return replace(first, tensors=tuple(tensor for part in parts for tensor in part.tensors))


def _read_part(path: Path) -> GgufFile:
    return _reading(path, _parse)


def _reading(path: Path, read: Callable[[_Cursor], T]) -> T:
    """Read from one file; errors of the operating system become a ModelFileError."""
    try:
        if not path.is_file():
            raise _no_file(path)
        size = path.stat().st_size
        if size == 0:
            raise ModelFileError(f"{path} is empty, expected a GGUF model.", WHOLE_FILE_CURE)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data,
        ):
            return read(_Cursor(data, path))
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}.", "Check its permissions."
        ) from error
    except (ValueError, struct.error) as error:  # the file shrinks while it is read
        raise ModelFileError(f"{path} cannot be read: {error}.", WHOLE_FILE_CURE) from error


def _no_file(path: Path) -> ModelFileError:
    if path.is_dir():
        return ModelFileError(
            f"{path} is a folder, expected one GGUF file.",
            "Give a .gguf file, or convert a Hugging Face folder with "
            "`alignpro-lite export target`.",
        )
    found = "is not a regular file" if path.exists() else "does not exist"
    return ModelFileError(f"{path} {found}, expected a GGUF model.", TEXT_MODEL_CURE)


def read_texts(gguf: GgufFile, key: str) -> list[bytes]:
    """Read an array of texts that `read_header` has counted, such as the vocabulary.

    Raises:
        ModelFileError: The file has no such array, or has changed meanwhile.
    """
    array = gguf.metadata.get(key)
    if not isinstance(array, ArraySummary) or not array.of_text:
        raise gguf.unsound(f"texts under {key}", "none" if array is None else clipped(array))
    return _reading(gguf.path, lambda cursor: cursor.texts(array))


def read_numbers(gguf: GgufFile, key: str) -> tuple[Number, ...]:
    """Read an array of numbers, also one that `read_header` has counted.

    Raises:
        ModelFileError: The file has no such array, or has changed meanwhile.
    """
    array = gguf.metadata.get(key)
    if isinstance(array, tuple):
        return array
    if not isinstance(array, ArraySummary) or array.of_text:
        raise gguf.unsound(f"numbers under {key}", "none" if array is None else clipped(array))
    return _reading(gguf.path, lambda cursor: cursor.array_of_numbers(array))


def c_string(text: bytes) -> bytes:
    """A text of a file as llama.cpp reads it: up to its first NUL."""
    return text.partition(b"\0")[0]


def _other_parts(first: GgufFile) -> Iterator[Path]:
    """The other files of a split model, which llama.cpp opens together with the first."""
    count = first.metadata.get("split.count", 0)
    if not is_count(count) or count < 2 or first.metadata.get("split.no") != 0:
        return
    if count > MAX_PARTS:
        raise first.unsound(f"at most {MAX_PARTS} parts", count)
    pattern = rf"(.+)-00001-of-{count:05d}\.gguf"
    match = re.fullmatch(pattern, first.path.name)
    if match is None:
        raise ModelFileError(
            f"{first.path} is the first of {count} parts, "
            f"but its name does not end in -00001-of-{count:05d}.gguf.",
            "Give all parts their original names.",
        )
    for number in range(2, count + 1):
        yield first.path.with_name(f"{match[1]}-{number:05d}-of-{count:05d}.gguf")


class _Cursor:
    """Reads values from a mapped file, one after the other, and never past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.size = len(data)
        self.end = min(self.size, MAX_HEADER_BYTES)
        self.n_texts = 0
        self.offset = 0

    def number(self, layout: struct.Struct) -> Number:
        self.require(layout.size)
        value: Number = layout.unpack_from(self.data, self.offset)[0]
        self.offset += layout.size
        return value

    def u32(self) -> int:
        return int(self.number(_U32))

    def u64(self) -> int:
        return int(self.number(_U64))

    def numbers(self, layout: struct.Struct, count: int) -> tuple[Number, ...]:
        array = struct.Struct(f"<{count}{layout.format[-1]}")
        self.require(array.size)
        values = array.unpack_from(self.data, self.offset)
        self.offset += array.size
        return values

    def text(self) -> str:
        length = self.u64()
        self.require(length)
        value = self.data[self.offset : self.offset + length]
        self.offset += length
        return c_string(value).decode("utf-8", errors="replace")

    def entry_count(self, most: int, entries: str) -> int:
        count = self.u64()
        if count > most:
            raise self.damaged(f"its header claims {count} {entries}")
        return count

    def skip(self, n_bytes: int) -> None:
        self.require(n_bytes)
        self.offset += n_bytes

    def skip_texts(self, count: int) -> None:
        """Skip strings. A vocabulary has 100,000 of them, so the loop does nothing else."""
        self.require(count * _U64.size)
        self.n_texts += count
        if self.n_texts > MAX_TEXTS:
            raise self.damaged(f"its header claims more than {MAX_TEXTS} texts")
        data, offset, read_length = self.data, self.offset, _U64.unpack_from
        try:
            for _ in range(count):
                offset += 8 + read_length(data, offset)[0]
        except (struct.error, OverflowError):
            raise self.too_short() from None
        self.offset = offset
        self.require(0)

    def texts(self, array: ArraySummary) -> list[bytes]:
        """Read the strings that `skip_texts` has skipped."""
        data, offset, read_length = self.data, array.offset, _U64.unpack_from
        texts = []
        for _ in range(array.count):
            start = offset + 8
            offset = start + read_length(data, offset)[0]
            if offset > self.end:
                raise self.too_short()
            texts.append(data[start:offset])
        return texts

    def array_of_numbers(self, array: ArraySummary) -> tuple[Number, ...]:
        """Read the numbers that a header counts; their type and count are before them."""
        self.offset = array.offset - _U32.size - _U64.size
        kind, count = self.u32(), self.u64()
        if kind not in _NUMBERS or count != array.count:
            raise self.damaged("an array of numbers has changed")
        return self.numbers(_NUMBERS[kind], count)

    def require(self, n_bytes: int) -> None:
        if self.offset + n_bytes > self.end:
            raise self.too_short()

    def too_short(self) -> ModelFileError:
        if self.end < self.size:
            return self.damaged(f"its header claims more than {MAX_HEADER_BYTES >> 20} MB")
        return self.damaged(f"its header ends too early, after {self.size} bytes")

    def damaged(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self.path} is damaged: {reason}.", WHOLE_FILE_CURE)


def _parse(cursor: _Cursor) -> GgufFile:
    version = _parse_version(cursor)
    n_tensors = cursor.entry_count(MAX_TENSORS, "tensors")
    n_pairs = cursor.entry_count(MAX_PAIRS, "metadata keys")
    metadata = _parse_metadata(cursor, n_pairs)
    architecture = metadata.get("general.architecture", "")
    if not isinstance(architecture, str):
        raise cursor.damaged("its general.architecture is not text")
    return GgufFile(
        path=cursor.path,
        version=version,
        architecture=architecture,
        metadata=MappingProxyType(metadata),
        tensors=_parse_tensors(cursor, n_tensors, _alignment(cursor, metadata)),
    )


def _parse_version(cursor: _Cursor) -> int:
    beginning = bytes(cursor.data[:32])
    if not beginning.startswith(MAGIC):
        raise ModelFileError(
            f"{cursor.path} is not a GGUF model: it begins with {_kind_of(beginning)}.",
            TEXT_MODEL_CURE,
        )
    cursor.skip(len(MAGIC))
    version = cursor.u32()
    if version and version & 0xFFFF == 0:
        raise ModelFileError(
            f"{cursor.path} is a big-endian GGUF, expected a little-endian one.",
            "Fetch the little-endian file or convert the model again.",
        )
    if version not in VERSIONS:
        raise ModelFileError(
            f"{cursor.path} has GGUF version {version}, expected 2 or 3.",
            "Convert the model again with a current llama.cpp, or upgrade alignpro-lite.",
        )
    return version


def _parse_metadata(cursor: _Cursor, count: int) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {}
    for _ in range(count):
        key = cursor.text()
        if not key or key in metadata:
            raise cursor.damaged(f"the key {clipped(key)} is empty or a duplicate")
        metadata[key] = _parse_value(cursor, key)
    return metadata


def _parse_value(cursor: _Cursor, key: str) -> MetadataValue:
    kind = cursor.u32()
    if key in _U16_KEYS and kind != _U16_TYPE:
        raise cursor.damaged(f"the key {key} is not a 16-bit number")
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _parse_array(cursor, key)
    if kind in _NUMBERS:
        return cursor.number(_NUMBERS[kind])
    raise cursor.damaged(f"the key {clipped(key)} has the unknown type {kind}")


def _parse_array(cursor: _Cursor, key: str) -> MetadataValue:
    kind, count = cursor.u32(), cursor.u64()
    start = cursor.offset
    if kind == _STRING:
        cursor.skip_texts(count)
        return ArraySummary(count, True, start)
    if kind not in _NUMBERS:
        raise cursor.damaged(f"the array {clipped(key)} has the unknown type {kind}")
    if count <= MAX_LAYERS:
        return cursor.numbers(_NUMBERS[kind], count)
    cursor.skip(count * _NUMBERS[kind].size)
    return ArraySummary(count, False, start)


def _alignment(cursor: _Cursor, metadata: Mapping[str, MetadataValue]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not is_count(alignment) or alignment.bit_count() != 1 or alignment < DEFAULT_ALIGNMENT:
        raise cursor.damaged(
            f"its alignment is {clipped(alignment)}, expected a power of two from "
            f"{DEFAULT_ALIGNMENT} up"
        )
    return alignment


def _parse_tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    """Read the tensors and check that the file holds every byte of them.

    Their data are stored in the same order, each padded to the alignment.
    """
    relative = [_parse_tensor(cursor) for _ in range(count)]
    if len({tensor.name for tensor in relative}) != count:
        raise cursor.damaged("two tensors have the same name")
    start = end = _padded(cursor.offset, alignment)
    expected = 0
    for tensor in relative:
        if tensor.offset != expected:
            raise cursor.damaged(
                f"the tensor {clipped(tensor.name)} should start at byte {expected}, "
                f"its header says {tensor.offset}"
            )
        end = start + expected + tensor.n_bytes
        expected += _padded(tensor.n_bytes, alignment)
    if relative and end > cursor.size:
        raise ModelFileError(
            f"{cursor.path} is cut off: its header promises {end} bytes, "
            f"the file has {cursor.size}.",
            WHOLE_FILE_CURE,
        )
    return tuple(replace(tensor, offset=start + tensor.offset) for tensor in relative)


def _parse_tensor(cursor: _Cursor) -> Tensor:
    """Read one tensor; its offset counts from the start of all data."""
    name, n_dimensions = cursor.text(), cursor.u32()
    if n_dimensions > MAX_DIMENSIONS:
        raise cursor.damaged(f"the tensor {clipped(name)} has {n_dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(n_dimensions))
    kind, offset = cursor.u32(), cursor.u64()
    if kind not in TENSOR_TYPES:
        raise ModelFileError(
            f"{cursor.path} has a tensor {clipped(name)} of the unknown type {kind}.",
            "Upgrade alignpro-lite, or quantise the model to a common type such as Q4_K_M.",
        )
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    if (shape[0] if shape else 1) % block:
        raise cursor.damaged(f"the rows of tensor {clipped(name)} are not multiples of {block}")
    return Tensor(name, shape, type_name, math.prod(shape) // block * block_bytes, offset)


def _kind_of(beginning: bytes) -> str:
    """The kind of file that begins with these bytes."""
    for prefix, description in _FOREIGN_BEGINNINGS:
        if beginning.startswith(prefix):
            return description
    if beginning[8:9] == b"{":
        return "a safetensors header"
    text = beginning.lstrip()
    if text.startswith(b"<"):
        return "an HTML or XML page, as in a failed download"
    if text.startswith(b"{"):
        return "JSON"
    return f"the bytes {beginning[:8].hex(' ')}"


def _padded(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment
