"""Read the header of a GGUF file: which model it holds, without loading it.

A header is small (key-value pairs and one line per tensor), so everything that
planning and error messages need is known in milliseconds and before a byte of
weights is touched. Sources of the format: `docs/gguf.md` of ggml for the
layout, `ggml.h` for the tensor types.

Every count and length is checked against the bytes that are left before it is
used, so a damaged or hostile file costs neither memory nor time.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

from alignpro_lite.errors import ModelFileError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

MAX_ENTRIES = 1 << 17
MAX_STRINGS = 1 << 22
MAX_TEXT_BYTES = 1 << 24
MAX_INLINE_ITEMS = 1 << 12
MAX_LAYERS = 1 << 9
MAX_DIMENSIONS = 4

# id: (name, weights per block, bytes per block)
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}

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
_STRING = 8
_ARRAY = 9

# What `general.type` and `general.architecture` say of files that hold no
# decoder of text. Architectures that are not listed are left to llama.cpp.
_OTHER_TYPES: Mapping[str, str] = {
    "adapter": "a LoRA adapter",
    "mmproj": "a vision or audio projector",
    "imatrix": "an importance matrix for quantisation",
    "vocab": "a vocabulary",
}
_OTHER_ARCHITECTURES: Mapping[str, str] = {
    "clip": "a vision or audio projector",
    "controlvector": "a control vector",
    "wavtokenizer-dec": "a speech decoder",
    "t5": "an encoder-decoder model",
    "eagle3": "a draft model for speculative decoding",
    "dflash": "a draft model for speculative decoding",
    "gemma4-assistant": "a draft model for speculative decoding",
} | dict.fromkeys(
    (
        "bert",
        "modern-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "neo-bert",
        "jina-bert-v2",
        "jina-bert-v3",
        "eurobert",
        "t5encoder",
        "gemma-embedding",
        "llama-embed",
    ),
    "an embedding model",
)

_FOREIGN_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint or a wheel"),
    (b"version https://git-lfs", "a git-lfs pointer instead of the file itself"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"lmgg", "the legacy GGML format"),
    (b"fmgg", "the legacy GGML format"),
    (b"tjgg", "the legacy GGML format"),
    (b"algg", "a legacy GGML adapter"),
    (b"\x80\x02", "a Python pickle, such as an old PyTorch checkpoint"),
    (b"\0\0\0\0\0\0\0\0", "zeros, as an unfinished download leaves them"),
)

_GIVE_ANOTHER = (
    "Give the .gguf file of a text-generation model; `alignpro-lite models list` names some."
)
_FETCH_AGAIN = "Delete it and fetch it again, for example with `alignpro-lite models pull`."


@dataclass(frozen=True)
class ArraySummary:
    """An array that is too long to be worth reading, such as the vocabulary.

    Attributes:
        count: How many items it has.
        of_text: Whether the items are strings rather than numbers.
    """

    count: int
    of_text: bool


Number = int | float | bool
Value = Number | str | tuple[Number, ...] | ArraySummary


@dataclass(frozen=True)
class Tensor:
    """One tensor of a GGUF file.

    Attributes:
        name: Its name, for example `blk.0.attn_q.weight`.
        shape: Its dimensions, the contiguous one first as ggml orders them.
        type: The name of its ggml type, for example `Q4_K`.
        n_bytes: The size of its data.
        offset: Where its data starts, in bytes from the beginning of its file.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    n_bytes: int
    offset: int


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF model; of all its parts, when it is split.

    Attributes:
        path: The file, or the first of its parts.
        version: The version of the format, 2 or 3.
        architecture: `general.architecture`, or "" when the file names none.
        metadata: All key-value pairs. Short arrays of numbers are tuples, all
            other arrays are an `ArraySummary`.
        tensors: The tensors in the order of the file.
        file_size: Bytes on disk.
    """

    path: Path
    version: int
    architecture: str
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    file_size: int

    @property
    def n_parameters(self) -> int:
        """How many weights the model has."""
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def name(self) -> str | None:
        """The name that the model's makers gave it."""
        return self._text("general.name")

    @property
    def chat_template(self) -> str | None:
        """The chat template, Jinja source that must be rendered in a sandbox."""
        return self._text("tokenizer.chat_template")

    @property
    def bos_id(self) -> int | None:
        """The token that begins a text."""
        return self._token_id("tokenizer.ggml.bos_token_id")

    @property
    def eos_id(self) -> int | None:
        """The token that ends an answer."""
        return self._token_id("tokenizer.ggml.eos_token_id")

    @property
    def vocab_size(self) -> int:
        """How many tokens the model knows, which is the width of its logits."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArraySummary):
            return tokens.count
        return self._count("vocab_size")

    @property
    def n_layers(self) -> int:
        """How many blocks the model has, without the output layer."""
        n_layers = self._count("block_count")
        if not 1 <= n_layers <= MAX_LAYERS:
            raise self._unusable("block_count", f"{n_layers}, outside 1 to {MAX_LAYERS}")
        return n_layers

    @property
    def context_length(self) -> int:
        """How many tokens of context the model was trained for."""
        context_length = self._count("context_length")
        if context_length == 0:
            raise self._unusable("context_length", "0")
        return context_length

    @property
    def embedding_length(self) -> int:
        """The width of the residual stream."""
        return self._count("embedding_length")

    @property
    def feed_forward_length(self) -> int:
        """The width of the widest dense feed-forward layer, 0 when there is none."""
        return max(self._per_layer("feed_forward_length", (0,) * self.n_layers))

    @property
    def n_head(self) -> tuple[int, ...]:
        """Query heads of each layer, 0 where a layer has no attention."""
        return self._per_layer("attention.head_count", (0,) * self.n_layers)

    @property
    def n_head_kv(self) -> tuple[int, ...]:
        """Key-value heads of each layer; as many as query heads unless the file says otherwise."""
        return self._per_layer("attention.head_count_kv", self.n_head)

    @property
    def key_length(self) -> int:
        """The width of one key head."""
        return self._count("attention.key_length", self._default_head_length)

    @property
    def value_length(self) -> int:
        """The width of one value head."""
        return self._count("attention.value_length", self._default_head_length)

    @property
    def sliding_window(self) -> int:
        """How many tokens its local layers look back, 0 when every layer sees the whole context."""
        return self._count("attention.sliding_window", 0)

    @property
    def n_experts(self) -> int:
        """Experts in each mixture layer, 0 for a dense model."""
        return self._count("expert_count", 0)

    @property
    def n_experts_used(self) -> int:
        """Experts that each token passes through, 0 for a dense model."""
        return self._count("expert_used_count", 0)

    @property
    def expert_feed_forward_length(self) -> int:
        """The width of one expert."""
        return self._count("expert_feed_forward_length", self.feed_forward_length)

    @property
    def _default_head_length(self) -> int:
        return self.embedding_length // (max(self.n_head) or 1)

    def _text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def _token_id(self, key: str) -> int | None:
        value = self.metadata.get(key)
        return value if _is_count(value) else None

    def _count(self, key: str, default: int | None = None) -> int:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if not _is_count(value):
            raise self._unusable(key, "missing" if value is None else _clipped(value))
        return value

    def _per_layer(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A number that holds for all layers, or one for each of them."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if _is_count(value):
            return (value,) * self.n_layers
        if not isinstance(value, tuple):
            raise self._unusable(key, _clipped(value))
        counts = tuple(item for item in value if _is_count(item))
        if len(counts) != len(value) or len(counts) != self.n_layers:
            raise self._unusable(key, f"{len(value)} items for {self.n_layers} layers")
        return counts

    def _unusable(self, key: str, found: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path} needs a whole number for {_clipped(f'{self.architecture}.{key}')}, "
            f"found: {found}.",
            _GIVE_ANOTHER,
        )


def read(path: str | Path) -> GgufFile:
    """Read the header of a GGUF file, and of its other parts when it is the first of several.

    Args:
        path: The file.

    Returns:
        What the header says. The weights are promised by the header and present
        in the file to the last byte; their values are not looked at.

    Raises:
        ModelFileError: The file is missing, empty, cut off, damaged or no GGUF.
    """
    first = _read_part(Path(path))
    parts = [first, *map(_read_part, _other_parts(first))]
    return replace(
        first,
        tensors=tuple(tensor for part in parts for tensor in part.tensors),
        file_size=sum(part.file_size for part in parts),
    )


def require_text_generation(gguf: GgufFile) -> None:
    """Refuse a GGUF that is no complete decoder of text.

    Args:
        gguf: A header from `read`.

    Raises:
        ModelFileError: It is an embedding model, a projector, an adapter, a
            later part of a split model, a vocabulary or something else.
    """
    if gguf.metadata.get("split.no", 0) != 0:
        raise ModelFileError(
            f"{gguf.path} is a later part of a model that is split over several files.",
            "Give its first part, whose name ends in -00001-of-… .gguf, in the same folder.",
        )
    other = _other_kind(gguf)
    if other is not None:
        raise ModelFileError(
            f"Expected a text-generation model, found {other} in {gguf.path}.", _GIVE_ANOTHER
        )


def _other_kind(gguf: GgufFile) -> str | None:
    """What the file holds when it is no decoder of text."""
    declared_type = gguf.metadata.get("general.type")
    if isinstance(declared_type, str) and declared_type in _OTHER_TYPES:
        return _OTHER_TYPES[declared_type]
    if gguf.architecture in _OTHER_ARCHITECTURES:
        return _OTHER_ARCHITECTURES[gguf.architecture]
    if not gguf.tensors:
        return "a vocabulary without weights"
    # Only embedding and ranking models are converted with a pooling rule.
    if gguf.metadata.get(f"{gguf.architecture}.pooling_type", 0) != 0:
        return "an embedding model"
    if gguf.metadata.get(f"{gguf.architecture}.attention.causal", True) is False:
        return "a model without causal attention"
    if not any(tensor.name == "token_embd.weight" for tensor in gguf.tensors):
        return f"no token embeddings (architecture {_clipped(gguf.architecture)})"
    if "tokenizer.ggml.model" not in gguf.metadata:
        return f"no tokenizer (architecture {_clipped(gguf.architecture)})"
    return None


def _read_part(path: Path) -> GgufFile:
    """Read one file, turning what the system reports into errors of the package."""
    try:
        if not path.is_file():
            raise _no_file(path)
        size = path.stat().st_size
        if size == 0:
            raise ModelFileError(f"{path} is empty, expected a GGUF model.", _FETCH_AGAIN)
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data,
        ):
            return _parse(_Cursor(data, path))
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read: {error.strerror or error}.", "Check its permissions."
        ) from error
    except ValueError as error:  # mmap says so when the file shrinks while it is opened
        raise ModelFileError(f"{path} cannot be read: {error}.", _FETCH_AGAIN) from error


def _no_file(path: Path) -> ModelFileError:
    if path.is_dir():
        return ModelFileError(
            f"{path} is a folder, expected one GGUF file.",
            "Give a .gguf file, or convert a Hugging Face folder with "
            "`alignpro-lite export target`.",
        )
    found = "is no regular file" if path.exists() else "does not exist"
    return ModelFileError(f"{path} {found}, expected a GGUF model.", _GIVE_ANOTHER)


def _other_parts(first: GgufFile) -> list[Path]:
    """The files that llama.cpp opens together with the first part of a split model."""
    count = first.metadata.get("split.count", 0)
    if not _is_count(count) or count < 2 or first.metadata.get("split.no") != 0:
        return []
    pattern = rf"(.+)-00001-of-{count:05d}\.gguf"
    match = re.fullmatch(pattern, first.path.name)
    if match is None:
        raise ModelFileError(
            f"{first.path} is the first of {count} parts, "
            f"but its name does not end in -00001-of-{count:05d}.gguf.",
            "Give all parts their original names.",
        )
    names = (f"{match[1]}-{number:05d}-of-{count:05d}.gguf" for number in range(2, count + 1))
    return [first.path.with_name(name) for name in names]


class _Cursor:
    """A position in a mapped file that never moves past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data = data
        self.path = path
        self.size = len(data)
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
        all_of_them = struct.Struct(f"<{count}{layout.format[-1]}")
        self.require(all_of_them.size)
        values = all_of_them.unpack_from(self.data, self.offset)
        self.offset += all_of_them.size
        return values

    def text(self) -> str:
        length = self.u64()
        if length > MAX_TEXT_BYTES:
            raise self.damaged(f"a string claims {length} bytes")
        self.require(length)
        value = self.data[self.offset : self.offset + length]
        self.offset += length
        return value.decode("utf-8", errors="replace")

    def entry_count(self) -> int:
        count = self.u64()
        if count > MAX_ENTRIES:
            raise self.damaged(f"the header claims {count} entries")
        return count

    def skip(self, n_bytes: int) -> None:
        self.require(n_bytes)
        self.offset += n_bytes

    def skip_texts(self, count: int) -> None:
        """Step over strings; a vocabulary has 100,000 of them, so this loop is bare."""
        if count > MAX_STRINGS:
            raise self.damaged(f"an array claims {count} strings")
        data, offset, read_length = self.data, self.offset, _U64.unpack_from
        try:
            for _ in range(count):
                offset += 8 + read_length(data, offset)[0]
        except (struct.error, OverflowError):
            raise self.cut_off() from None
        self.offset = offset
        self.require(0)

    def require(self, n_bytes: int) -> None:
        if self.offset + n_bytes > self.size:
            raise self.cut_off()

    def cut_off(self) -> ModelFileError:
        return self.damaged(f"its header ends too early, the file has {self.size} bytes")

    def damaged(self, reason: str) -> ModelFileError:
        return ModelFileError(f"{self.path} is damaged: {reason}.", _FETCH_AGAIN)


def _parse(cursor: _Cursor) -> GgufFile:
    version = _parse_version(cursor)
    n_tensors, n_pairs = cursor.entry_count(), cursor.entry_count()
    metadata = _parse_metadata(cursor, n_pairs)
    architecture = metadata.get("general.architecture", "")
    if not isinstance(architecture, str):
        raise cursor.damaged("its general.architecture is no text")
    return GgufFile(
        path=cursor.path,
        version=version,
        architecture=architecture,
        metadata=MappingProxyType(metadata),
        tensors=_parse_tensors(cursor, n_tensors, _alignment(cursor, metadata)),
        file_size=cursor.size,
    )


def _parse_version(cursor: _Cursor) -> int:
    beginning = bytes(cursor.data[:32])
    if not beginning.startswith(MAGIC):
        raise ModelFileError(
            f"{cursor.path} is no GGUF model: it begins with {_describe(beginning)}.",
            _GIVE_ANOTHER,
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


def _parse_metadata(cursor: _Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.text()
        if not key or key in metadata:
            raise cursor.damaged(f"the key {_clipped(key)} is empty or comes twice")
        metadata[key] = _parse_value(cursor, key)
    return metadata


def _parse_value(cursor: _Cursor, key: str) -> Value:
    kind = cursor.u32()
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _parse_array(cursor, key)
    if kind in _NUMBERS:
        return cursor.number(_NUMBERS[kind])
    raise cursor.damaged(f"the key {_clipped(key)} has the unknown type {kind}")


def _parse_array(cursor: _Cursor, key: str) -> Value:
    kind, count = cursor.u32(), cursor.u64()
    if kind == _STRING:
        cursor.skip_texts(count)
        return ArraySummary(count, of_text=True)
    if kind not in _NUMBERS:
        raise cursor.damaged(f"the array {_clipped(key)} has the unknown type {kind}")
    if count <= MAX_INLINE_ITEMS:
        return cursor.numbers(_NUMBERS[kind], count)
    cursor.skip(count * _NUMBERS[kind].size)
    return ArraySummary(count, of_text=False)


def _alignment(cursor: _Cursor, metadata: Mapping[str, Value]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not _is_count(alignment) or alignment.bit_count() != 1:
        raise cursor.damaged(f"its alignment is {_clipped(alignment)}, expected a power of two")
    return alignment


def _parse_tensors(cursor: _Cursor, count: int, alignment: int) -> tuple[Tensor, ...]:
    """Read the tensors and make sure that the file holds every byte of them.

    Their data follow each other in the same order, each padded to the alignment.
    """
    relative = [_parse_tensor(cursor) for _ in range(count)]
    if len({tensor.name for tensor in relative}) != count:
        raise cursor.damaged("two tensors have the same name")
    start = end = _padded(cursor.offset, alignment)
    expected = 0
    for tensor in relative:
        if tensor.offset != expected:
            raise cursor.damaged(
                f"the tensor {_clipped(tensor.name)} is said to start at byte {tensor.offset}, "
                f"expected {expected}"
            )
        end = start + expected + tensor.n_bytes
        expected += _padded(tensor.n_bytes, alignment)
    if relative and end > cursor.size:
        raise ModelFileError(
            f"{cursor.path} is cut off: its header promises {end} bytes, "
            f"the file has {cursor.size}.",
            _FETCH_AGAIN,
        )
    return tuple(replace(tensor, offset=start + tensor.offset) for tensor in relative)


def _parse_tensor(cursor: _Cursor) -> Tensor:
    """Read one tensor, its offset still counted from the start of all data."""
    name, n_dimensions = cursor.text(), cursor.u32()
    if n_dimensions > MAX_DIMENSIONS:
        raise cursor.damaged(f"the tensor {_clipped(name)} has {n_dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(n_dimensions))
    kind, offset = cursor.u32(), cursor.u64()
    if kind not in TENSOR_TYPES:
        raise ModelFileError(
            f"{cursor.path} has a tensor {_clipped(name)} of the unknown type {kind}.",
            "Upgrade alignpro-lite, or quantise the model to a common type such as Q4_K_M.",
        )
    type_name, block, block_bytes = TENSOR_TYPES[kind]
    if (shape[0] if shape else 1) % block:
        raise cursor.damaged(f"rows of the tensor {_clipped(name)} are no multiple of {block}")
    return Tensor(name, shape, type_name, math.prod(shape) // block * block_bytes, offset)


def _describe(beginning: bytes) -> str:
    """Say in words what a file is that begins with these bytes."""
    for prefix, description in _FOREIGN_BEGINNINGS:
        if beginning.startswith(prefix):
            return description
    if beginning[8:9] == b"{":
        return "a safetensors header"
    text = beginning.lstrip()
    if text.startswith(b"<"):
        return "an HTML or XML page, as a failed download leaves it"
    if text.startswith(b"{"):
        return "JSON"
    return f"the bytes {beginning[:8].hex(' ')}"


def _padded(n_bytes: int, alignment: int) -> int:
    return -(-n_bytes // alignment) * alignment


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _clipped(value: object) -> str:
    """A value from a file, fit to be shown: on one line, and not the whole of a long one."""
    return f"{value!r:.80}"
