"""Which weights have 4 bits."""

from __future__ import annotations

import numpy as np
import pytest

from alignpro_lite.assembly.packing import Q4, Q8, Q8_WIDE, Matrix32
from alignpro_lite.export.quantise import MIXES, eight_bits, mixed_bits

GATE = "/model/layers.0/mlp/gate_proj/MatMul"
DOWN = "/model/layers.0/mlp/down_proj/MatMul"


@pytest.fixture
def fine() -> Matrix32:
    """Weights that 4 bits cannot express."""
    return np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


@pytest.fixture
def coarse() -> Matrix32:
    """Weights on a 4-bit grid."""
    return np.random.default_rng(0).integers(0, 16, (64, 64)).astype(np.float32)


def test_weights_on_a_4_bit_grid_have_4_bits_in_every_mix(coarse: Matrix32) -> None:
    assert [mixed_bits(rounded)(DOWN, coarse) for rounded in MIXES] == [Q4, Q4]


def test_only_the_first_mix_rounds_other_weights_and_only_the_widest(fine: Matrix32) -> None:
    """Regression: an int4 export of a file of other types lost 15 % of its decisions."""
    found = [[mixed_bits(rounded)(name, fine) for name in (GATE, DOWN)] for rounded in MIXES]
    assert found == [[Q4, Q8_WIDE], [Q8_WIDE, Q8_WIDE]]


def test_int8_has_8_bits_everywhere(coarse: Matrix32) -> None:
    assert eight_bits(DOWN, coarse) == Q8


def test_widths_that_blocks_of_64_do_not_divide_have_blocks_of_32(fine: Matrix32) -> None:
    narrow = np.ascontiguousarray(fine[:, :32])
    assert mixed_bits(())(DOWN, np.concatenate([fine, narrow], 1)) == Q8
