"""Penalties outside their range are refused by name."""

from __future__ import annotations

import pytest

from alignpro_lite import Penalties
from alignpro_lite.errors import InputError


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"presence": 2.1}, "presence penalty must be -2 to 2, found 2.1"),
        ({"frequency": float("nan")}, "frequency penalty"),
        ({"repeat": 0}, "repeat penalty must be above 0"),
        ({"bias": ((5, 101),)}, "bias of token 5 must be -100 to 100"),
    ],
)
def test_a_penalty_outside_its_range_is_refused(options, named):
    with pytest.raises(InputError, match=named):
        Penalties(**options)


def test_a_bias_alone_counts_no_tokens():
    assert not Penalties(bias=((5, 1),)).counts
    assert Penalties(repeat=1.1).counts
