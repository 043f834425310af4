"""Packed weights are near the weights, exact where those are on a 4-bit grid, and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.assembly import packing
from alignpro_lite.assembly.packing import BLOCK, Q4, Q8, Q8_WIDE, Blocks, Matrix32, Packing
from alignpro_lite.errors import ExportError

SEEDS = st.integers(0, 2**32 - 1)


def normal(seed: int, rows: int, columns: int) -> Matrix32:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def on_grid(seed: int, highest: int, shift: float) -> Matrix32:
    """Weights [4, 64] of which each block uses the levels from 0 to `highest` of its own grid."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, highest + 1, (4, 2, BLOCK))
    levels[..., 0], levels[..., 1] = 0, highest
    steps = random.uniform(0.01, 0.1, (4, 2, 1))
    return (steps * levels + shift * steps * highest / 2).reshape(4, -1).astype(np.float32)


def restored(blocks: Blocks, offsets: Matrix32 | float = 0.0) -> Matrix32:
    steps = blocks.values.astype(np.float32) - blocks.zeros[..., None]
    weights = blocks.scales[..., None] * steps + np.asarray(offsets, np.float32)[..., None]
    return weights.reshape(len(weights), -1)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(8, 15), st.floats(-2, 2))
def test_weights_on_a_4_bit_grid_come_back_unchanged(seed: int, highest: int, shift: float) -> None:
    """Regression: a grid whose blocks use fewer than 16 levels (Q4_K) lost 4 % of its norm."""
    weight = on_grid(seed, highest, shift)
    blocks, offsets = packing.quantise_exactly(weight)
    np.testing.assert_allclose(restored(blocks, offsets), weight, atol=1e-5)
    assert (blocks.values < 16).all()
    assert (blocks.zeros < 16).all()
    assert packing.is_on_grid(weight)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_other_weights_lose_less_than_on_a_grid_from_minimum_to_maximum(seed: int) -> None:
    weight = normal(seed, 64, 256)
    blocks = weight.reshape(64, -1, BLOCK)
    low = blocks.min(-1, keepdims=True)
    steps = (blocks.max(-1, keepdims=True) - low) / 15
    plain = np.round((blocks - low) / steps) * steps + low
    found = restored(*packing.quantise_exactly(weight))
    lost = np.linalg.norm(found - weight) / np.linalg.norm(weight)
    assert lost < 0.96 * np.linalg.norm(plain.reshape(weight.shape) - weight) / np.linalg.norm(
        weight
    )
    assert not packing.is_on_grid(weight)


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.sampled_from([32, 64]))
def test_8_bits_are_within_half_a_step(seed: int, block: packing.BlockSize) -> None:
    weight = normal(seed, 4, 128)
    blocks = packing.quantise_symmetric(weight, block)
    assert blocks.values.shape == (4, 128 // block, block)
    error = np.abs(restored(blocks) - weight).reshape(blocks.values.shape).max(-1)
    assert (error <= blocks.scales * 0.5001).all()


@pytest.mark.parametrize("how", [Q4, Q8, Q8_WIDE])
def test_rows_in_parts_give_the_same_bytes(how: Packing) -> None:
    weight = normal(3, 100, 1024)
    whole = packing.quantise_product(weight, how)
    parts = [packing.quantise_product(part, how) for part in np.split(weight, [7, 60])]
    for packed in (Blocks.packed_values, Blocks.packed_zeros, lambda blocks: blocks.scales):
        joined = np.concatenate([packed(part) for part in parts])
        np.testing.assert_array_equal(packed(whole), joined)


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0, 1e-30])
def test_equal_weights_come_back(value: float) -> None:
    weight = np.full((2, 64), value, np.float32)
    for found in (
        restored(*packing.quantise_exactly(weight)),
        restored(packing.quantise_symmetric(weight, 32)),
    ):
        np.testing.assert_allclose(found, weight, rtol=1e-6)


def test_block_sums_follow_the_inputs() -> None:
    """The product of packed weights and inputs with their sums is that of the weights."""
    weight, inputs = on_grid(5, 15, 0.7), normal(6, 3, 64)
    blocks = packing.quantise_product(weight, Q4)
    sums = inputs.reshape(3, -1, BLOCK).sum(-1)
    widened = np.pad(np.concatenate([inputs, sums], 1), ((0, 0), (0, BLOCK - 2)))
    np.testing.assert_allclose(widened @ restored(blocks).T, inputs @ weight.T, rtol=0.02, atol=0.2)


@pytest.mark.parametrize(("how", "width"), [(Q4, 40), (Q8, 40), (Q8_WIDE, 96)])
def test_widths_that_are_no_multiple_of_a_block_are_refused(how: Packing, width: int) -> None:
    with pytest.raises(ExportError, match=f"multiple of {how.block}, found {width}"):
        packing.quantise_product(np.ones((2, width), np.float32), how)
