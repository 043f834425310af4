"""The weights of a GGUF file as floats, in numpy alone.

The layouts are facts of ggml's `ggml-common.h`: every type stores rows in blocks, each with its
scales. What comes out equals, to the bit, what the `gguf` package of llama.cpp makes of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.header import TENSOR_TYPES, GgufFile, Tensor

Bytes = NDArray[np.uint8]
"""Blocks of one tensor, [blocks, bytes of a block]."""
Floats = NDArray[np.float32]


class GgufWeights:
    """The tensors of one GGUF file, read one at a time."""

    def __init__(self, file: GgufFile) -> None:
        """Map the file.

        Args:
            file: Its header; the model must not be split over several files.
        """
        self._file = file
        self._tensors = {tensor.name: tensor for tensor in file.tensors}
        self._data = np.memmap(file.path, np.uint8, "r")

    def read(self, name: str, first: int = 0, last: int | None = None) -> Floats:
        """Rows of a tensor, its dimensions in numpy's order: the contiguous one last.

        Args:
            name: Of the tensor.
            first: Of the rows, along the slowest dimension.
            last: The row after the last one; None reads to the end.

        Raises:
            ModelFileError: The file has no such tensor, or it is of a type that is not read here.
        """
        tensor = self._tensor(name)
        *inner, count = tensor.shape
        row_bytes = tensor.n_bytes // count
        last = count if last is None else last
        start = tensor.offset
        stored = self._data[start + first * row_bytes : start + last * row_bytes]
        values = _READERS[tensor.type](stored.reshape(-1, _BLOCK_BYTES[tensor.type]))
        return values.reshape(-1, *inner[::-1])

    def row_count(self, name: str) -> int:
        """How many rows a tensor has.

        Raises:
            ModelFileError: See `read`.
        """
        return self._tensor(name).shape[-1]

    def _tensor(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise self._file.unsound(f"a tensor {name}", "none")
        if tensor.type not in _READERS:
            raise ModelFileError(
                f"{self._file.path} has a tensor {name} of type {tensor.type}, expected one of "
                f"{', '.join(_READERS)}.",
                "Use a file of one of these types, such as Q4_K_M.",
            )
        return tensor


_BLOCK_BYTES = {name: block_bytes for name, _, block_bytes in TENSOR_TYPES.values()}


def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view(np.float32)


def _f16(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view(np.float16).astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    wide: NDArray[np.uint32] = np.ascontiguousarray(blocks).view(np.uint16).astype(np.uint32)
    return (wide << 16).view(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Low halves of all bytes, then high halves: [blocks, 2 * bytes]."""
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def _fifth_bits(packed: Bytes) -> Bytes:
    """The fifth bit of 32 values, in place: 0 or 16, [blocks, 32]."""
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    return (bits << 4).astype(np.uint8)


def _q4_0(blocks: Bytes) -> Floats:
    return _f16(blocks[:, :2]) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 4:]).astype(np.float32)
    return _f16(blocks[:, :2]) * values + _f16(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Floats:
    values = (_nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6])).astype(np.float32)
    return _f16(blocks[:, :2]) * (values - 16)


def _q5_1(blocks: Bytes) -> Floats:
    values = (_nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8])).astype(np.float32)
    return _f16(blocks[:, :2]) * values + _f16(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Floats:
    return _f16(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _six_bit_pairs(packed: Bytes) -> tuple[Bytes, Bytes]:
    """Eight scales and eight minima of 6 bits each, in 12 bytes: [blocks, 8] twice."""
    first, second, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([first & 63, (rest & 15) | (first >> 6 << 4)], axis=1)
    minima = np.concatenate([second & 63, (rest >> 4) | (second >> 6 << 4)], axis=1)
    return scales, minima


def _q4_k(blocks: Bytes) -> Floats:
    return _scaled_with_minima(blocks, _pairs_of_rows(blocks[:, 16:]))


def _q5_k(blocks: Bytes) -> Floats:
    # Byte i holds the fifth bit of value i of all eight rows.
    fifth = np.unpackbits(blocks[:, 16:48, None], axis=2, bitorder="little").transpose(0, 2, 1)
    values = _pairs_of_rows(blocks[:, 48:]) | fifth << 4
    return _scaled_with_minima(blocks, values.astype(np.uint8))


def _pairs_of_rows(packed: Bytes) -> Bytes:
    """32 bytes hold two rows of 32 values, in low and high halves: [blocks, 8, 32]."""
    rows = packed.reshape(len(packed), 4, 1, 32)
    return np.concatenate([rows & 15, rows >> 4], axis=2).reshape(len(packed), 8, 32)


def _scaled_with_minima(blocks: Bytes, values: Bytes) -> Floats:
    """The values of a K type with minima: two scales, then 8 pairs of them in 12 bytes."""
    scales, minima = _six_bit_pairs(blocks[:, 4:16])
    steps = _f16(blocks[:, :2]) * scales.astype(np.float32)
    lows = _f16(blocks[:, 2:4]) * minima.astype(np.float32)
    return steps[..., None] * values.astype(np.float32) - lows[..., None]


def _q6_k(blocks: Bytes) -> Floats:
    count = len(blocks)
    packed = blocks[:, :128].reshape(count, 2, 1, 64)
    low = np.concatenate([packed & 15, packed >> 4], axis=2).reshape(count, 8, 32)
    packed = blocks[:, 128:192].reshape(count, 2, 1, 32)
    high = np.concatenate([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=2)
    values = low | high.reshape(count, 8, 32) << 4
    steps = _f16(blocks[:, 208:]) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    centred: Floats = values.reshape(count, 16, 16).astype(np.float32) - 32
    weights: Floats = steps[..., None] * centred
    return weights


_READERS: Mapping[str, Callable[[Bytes], Floats]] = {
    "F32": _f32,
    "F16": _f16,
    "BF16": _bf16,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
