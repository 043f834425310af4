"""Weights as onnxruntime's MatMulNBits stores them, at 4 or 8 bits, in numpy alone.

Blocks of weights along the input dimension share a scale. What differs from the stock quantisers
(measured in docs/export.md):

* 4 bits: MatMulNBits has integer zero points only, which rounds the grid of a block by up to half a
  step; that changes a third of a 135M model's argmax decisions. So the grid lies where the error is
  least, and extra columns carry what the integer zero point cannot express: one per block,
  multiplied with the sum of the block's inputs. A GGUF of type Q4_1 or Q4_K has such grids, and is
  reproduced exactly.
* 8 bits: symmetric, in blocks of 32 the grid of GGUF's Q8_0. Blocks of 64 have half as many scales
  and zero points, so a product takes less time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.errors import ExportError

Bits = Literal[4, 8]
BlockSize = Literal[32, 64]
Matrix32 = NDArray[np.float32]

BLOCK: BlockSize = 32
"""Weights that share a grid at 4 bits."""

_LEVELS = 15
"""Steps of a 4-bit grid."""
_STEPS = (15, 16, 17, 18, 20, *range(14, 7, -1))
"""In how many steps the range of a block is cut. More than 15 cut its ends off, which helps where
few weights lie there. Fewer find the grid of weights that use only a part of their 16 levels."""
_EXACT = 1e-6
"""Share of a block's variance that float32 does not tell from nothing."""
_ON_GRID = 1e-2
"""Share of a weight's norm that 4 bits may lose if its blocks have 4-bit grids. Where they have
none, 4 bits lose 7 %."""
_TELLING_ROWS = 64
_CHUNK = 4096
"""Blocks that are searched together: what they need fits in a core's cache."""


@dataclass(frozen=True)
class Packing:
    """How a weight is stored.

    Attributes:
        bits: Of each value.
        block: How many values along the input dimension share a scale; 32 at 4 bits.
    """

    bits: Bits
    block: BlockSize


Q4 = Packing(4, BLOCK)
Q8 = Packing(8, 32)
Q8_WIDE = Packing(8, 64)


@dataclass(frozen=True)
class Blocks:
    """Quantised weights in blocks of B.

    Attributes:
        values: Unsigned integers [N, K / B, B].
        scales: One per block [N, K / B].
        zeros: Zero points [N, K / B]; weight = scale * (value - zero).
        bits: 4 or 8.
    """

    values: NDArray[np.uint8]
    scales: Matrix32
    zeros: NDArray[np.uint8]
    bits: Bits

    def packed_values(self) -> NDArray[np.uint8]:
        """Values as MatMulNBits stores them: [N, K / B, B * bits / 8] bytes."""
        return self.values if self.bits == 8 else _pack_nibbles(self.values)

    def packed_zeros(self) -> NDArray[np.uint8]:
        """Zero points as MatMulNBits stores them: [N, ceil(K / B * bits / 8)] bytes."""
        if self.bits == 8:
            return self.zeros
        return _pack_nibbles(np.pad(self.zeros, ((0, 0), (0, self.zeros.shape[1] % 2))))


def quantise_product(weight: Matrix32, packing: Packing) -> Blocks:
    """Quantise what a MatMul multiplies by; at 4 bits it gains a column for each block.

    Args:
        weight: [N, K]. Each row is quantised by itself, so rows may be given in parts.
        packing: How it is stored.

    Returns:
        Blocks of [N, K] at 8 bits, of [N, K + K / 32] at 4, the inputs being followed by the sums
        of their blocks.

    Raises:
        ExportError: K is not a multiple of a block.
    """
    if packing.bits == 8:
        return quantise_symmetric(weight, packing.block)
    blocks, offsets = quantise_exactly(weight)
    padded = np.pad(offsets, ((0, 0), (0, -offsets.shape[1] % BLOCK)))
    return _append(blocks, quantise_nearest(padded))


def quantise_exactly(weight: Matrix32) -> tuple[Blocks, Matrix32]:
    """Quantise to 4 bits on the grid of least squared error that is found for each block.

    Args:
        weight: [N, K].

    Returns:
        The blocks, and the offset of each block [N, K / 32] that integer zero points cannot
        express: weight = scale * (value - zero) + offset.
    """
    blocks = _blocks(weight, BLOCK)
    shape = blocks.shape[:2]
    flat = blocks.reshape(-1, BLOCK)
    values = np.empty(flat.shape, np.uint8)
    scales, lows = np.empty((2, len(flat)), np.float32)
    for first in range(0, len(flat), _CHUNK):
        part = slice(first, first + _CHUNK)
        values[part], scales[part], lows[part] = _best_grids(flat[part])
    zeros = np.clip(np.round(-lows / scales), 0, _LEVELS)
    quantised = Blocks(
        values.reshape(blocks.shape),
        scales.reshape(shape),
        zeros.astype(np.uint8).reshape(shape),
        4,
    )
    return quantised, (lows + zeros * scales).astype(np.float32).reshape(shape)


def is_on_grid(weight: Matrix32) -> bool:
    """Whether the blocks of a weight [N, K] have 4-bit grids, as those of Q4_0, Q4_1 and Q4_K do.

    Some rows tell: all of a tensor have one type.
    """
    some = weight[:: max(1, len(weight) // _TELLING_ROWS)]
    blocks, offsets = quantise_exactly(some)
    steps = blocks.values.astype(np.float32) - blocks.zeros[..., None]
    found = blocks.scales[..., None] * steps + offsets[..., None]
    lost = float(np.linalg.norm(found.reshape(some.shape) - some))
    return lost <= _ON_GRID * float(np.linalg.norm(some))


def quantise_nearest(weight: Matrix32) -> Blocks:
    """Quantise [N, K] to 4 bits with integer zero points, zero always representable."""
    blocks = _blocks(weight, BLOCK)
    low = np.minimum(blocks.min(-1), 0)
    scales = _nonzero((np.maximum(blocks.max(-1), 0) - low) / _LEVELS)
    zeros = np.round(-low / scales)
    values = np.clip(np.round(blocks / scales[..., None]) + zeros[..., None], 0, _LEVELS)
    return Blocks(values.astype(np.uint8), scales, zeros.astype(np.uint8), 4)


def quantise_symmetric(weight: Matrix32, block: BlockSize) -> Blocks:
    """Quantise [N, K] to 8 bits symmetrically, in blocks of so many."""
    blocks = _blocks(weight, block)
    scales = _nonzero(np.abs(blocks).max(-1) / 127)
    values = np.round(blocks / scales[..., None]) + 128
    return Blocks(values.astype(np.uint8), scales, np.full(scales.shape, 128, np.uint8), 8)


def _best_grids(blocks: Matrix32) -> tuple[NDArray[np.uint8], Matrix32, Matrix32]:
    """The 4-bit grids that fit some blocks [n, 32] best.

    For each number of steps the weights are rounded to a grid, and the grid is moved to where it
    fits these values best, by least squares. Sums run over the first axis, where numpy adds one
    row after the other: the result is the same to the bit on every machine.

    Returns:
        Values [n, 32], scales [n] and lows [n]: weight = low + scale * value.
    """
    weights = np.ascontiguousarray(blocks.T)
    means = weights.sum(0) / BLOCK
    weights -= means
    variances = (weights * weights).sum(0)
    low, width = weights.min(0), np.ptp(weights, 0)
    values = np.zeros(weights.shape, np.float32)
    scales, lows, errors = np.ones_like(means), means.copy(), variances.copy()
    for steps in _STEPS:
        left = np.flatnonzero(errors > _EXACT * variances)
        some = weights[:, left]
        scale = width[left] / np.float32(steps)
        start = low[left] + scale * np.float32(max(steps - _LEVELS, 0) / 2)
        found = np.clip(np.rint((some - start) / scale), 0, _LEVELS)
        mean = found.sum(0) / BLOCK
        shared, spread = (found * some).sum(0), (found * found).sum(0) - BLOCK * mean * mean
        error = variances[left] - shared * shared / spread
        better = error < errors[left]
        chosen = left[better]
        errors[chosen] = error[better]
        values[:, chosen] = found[:, better]
        scales[chosen] = (shared / spread)[better]
        lows[chosen] = means[chosen] - scales[chosen] * mean[better]
    return values.T.astype(np.uint8), scales, lows


def _append(first: Blocks, second: Blocks) -> Blocks:
    return Blocks(
        np.concatenate([first.values, second.values], 1),
        np.concatenate([first.scales, second.scales], 1),
        np.concatenate([first.zeros, second.zeros], 1),
        first.bits,
    )


def _blocks(weight: Matrix32, block: BlockSize) -> Matrix32:
    """Reshape [N, K] to [N, K / block, block]."""
    rows, columns = weight.shape
    if columns % block:
        raise ExportError(
            f"Expected weights whose input width is a multiple of {block}, found {columns}.",
            "Use --precision fp32 for this model.",
        )
    return np.ascontiguousarray(weight).reshape(rows, -1, block)


def _pack_nibbles(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return (values[..., 0::2] | (values[..., 1::2] << 4)).astype(np.uint8)


def _nonzero(scales: Matrix32) -> Matrix32:
    """Replace the scale 0 of blocks whose weights are all equal by 1."""
    return np.where(scales == 0, 1, scales).astype(np.float32)
