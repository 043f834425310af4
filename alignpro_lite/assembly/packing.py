"""Weights as onnxruntime's MatMulNBits stores them, at 4 or 8 bits, in numpy alone.

Blocks of 32 weights along the input dimension share a scale. Two things differ from the stock
quantisers (measured in docs/export.md):

* 4 bits: MatMulNBits has integer zero points only, which rounds the grid of a block by up to half a
  step; that changes a third of a 135M model's argmax decisions. So the grid runs exactly from the
  block's minimum to its maximum, and extra columns carry what the integer zero point cannot
  express: one per block, multiplied with the sum of the block's inputs. A GGUF of type Q4_1 has the
  same grid and is reproduced exactly.
* 8 bits: symmetric, the grid of GGUF's Q8_0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import ExportError

BLOCK = 32

Bits = Literal[4, 8]
Matrix32 = NDArray[np.float32]


@dataclass(frozen=True)
class Blocks:
    """Quantised weights.

    Attributes:
        values: Unsigned integers [N, K / 32, 32].
        scales: One per block [N, K / 32].
        zeros: Zero points [N, K / 32]; weight = scale * (value - zero).
        bits: 4 or 8.
    """

    values: NDArray[np.uint8]
    scales: Matrix32
    zeros: NDArray[np.uint8]
    bits: Bits

    def packed_values(self) -> NDArray[np.uint8]:
        """Values as MatMulNBits stores them: [N, K / 32, 4 * bits] bytes."""
        return self.values if self.bits == 8 else _pack_nibbles(self.values)

    def packed_zeros(self) -> NDArray[np.uint8]:
        """Zero points as MatMulNBits stores them: [N, ceil(K / 32 * bits / 8)] bytes."""
        if self.bits == 8:
            return self.zeros
        return _pack_nibbles(np.pad(self.zeros, ((0, 0), (0, self.zeros.shape[1] % 2))))


def quantise_product(weight: Matrix32, bits: Bits) -> Blocks:
    """Quantise what a MatMul multiplies by; at 4 bits it gains a column for each block.

    Args:
        weight: [N, K].
        bits: 4 or 8.

    Returns:
        Blocks of [N, K] at 8 bits, of [N, K + K / 32] at 4, the inputs being followed by the sums
        of their blocks.

    Raises:
        ExportError: K is not a multiple of 32.
    """
    if bits == 8:
        return quantise_symmetric(weight)
    blocks, offsets = quantise_exactly(weight)
    padded = np.pad(offsets, ((0, 0), (0, -offsets.shape[1] % BLOCK)))
    return _append(blocks, quantise_nearest(padded))


def quantise_exactly(weight: Matrix32) -> tuple[Blocks, Matrix32]:
    """Quantise to 4 bits on the grid from each block's minimum to its maximum.

    Args:
        weight: [N, K].

    Returns:
        The blocks, and the offset of each block [N, K / 32] that integer zero points cannot
        express: weight = scale * (value - zero) + offset.
    """
    blocks = _blocks(weight)
    low = blocks.min(-1)
    scales = _nonzero((blocks.max(-1) - low) / 15)
    values = np.clip(np.round((blocks - low[..., None]) / scales[..., None]), 0, 15)
    zeros = np.clip(np.round(-low / scales), 0, 15)
    quantised = Blocks(values.astype(np.uint8), scales, zeros.astype(np.uint8), 4)
    return quantised, (low + zeros * scales).astype(np.float32)


def quantise_nearest(weight: Matrix32) -> Blocks:
    """Quantise [N, K] to 4 bits with integer zero points, zero always representable."""
    blocks = _blocks(weight)
    low = np.minimum(blocks.min(-1), 0)
    scales = _nonzero((np.maximum(blocks.max(-1), 0) - low) / 15)
    zeros = np.round(-low / scales)
    values = np.clip(np.round(blocks / scales[..., None]) + zeros[..., None], 0, 15)
    return Blocks(values.astype(np.uint8), scales, zeros.astype(np.uint8), 4)


def quantise_symmetric(weight: Matrix32) -> Blocks:
    """Quantise [N, K] to 8 bits symmetrically, the grid of GGUF's Q8_0."""
    blocks = _blocks(weight)
    scales = _nonzero(np.abs(blocks).max(-1) / 127)
    values = np.round(blocks / scales[..., None]) + 128
    return Blocks(values.astype(np.uint8), scales, np.full(scales.shape, 128, np.uint8), 8)


def block_sums(width: int) -> Matrix32:
    """What turns K inputs into the sums of their blocks: [K, K / 32] of zeros and ones."""
    return np.kron(np.eye(width // BLOCK), np.ones((BLOCK, 1))).astype(np.float32)


def _append(first: Blocks, second: Blocks) -> Blocks:
    return Blocks(
        np.concatenate([first.values, second.values], 1),
        np.concatenate([first.scales, second.scales], 1),
        np.concatenate([first.zeros, second.zeros], 1),
        first.bits,
    )


def _blocks(weight: Matrix32) -> Matrix32:
    """Reshape [N, K] to [N, K / 32, 32]."""
    rows, columns = weight.shape
    if columns % BLOCK:
        raise ExportError(
            f"Expected weights whose input width is a multiple of {BLOCK}, found {columns}.",
            "Use --precision fp32 for this model.",
        )
    return weight.reshape(rows, -1, BLOCK)


def _pack_nibbles(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (values[..., 0::2] | (values[..., 1::2] << 4)).astype(np.uint8)


def _nonzero(scales: Matrix32) -> Matrix32:
    """Replace the scale 0 of blocks whose weights are all equal by 1."""
    return np.where(scales == 0, 1, scales).astype(np.float32)
