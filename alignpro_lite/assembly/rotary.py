"""The tables of rotary positions without rescaling, the same on every machine."""

from __future__ import annotations

import numpy as np

from alignpro_lite.assembly.packing import Matrix32


def rotary_tables(base: float, length: int, width: int) -> tuple[Matrix32, Matrix32]:
    """Cosines and sines of the angles position * base^(-i / width).

    Angles are rounded to float32, as torch has them; their functions are computed in float64, whose
    last bits differ between machines, and rounded.

    Args:
        base: The frequency base of the model (theta).
        length: Positions.
        width: Angles of each, half the width of a head.

    Returns:
        Two tables [length, width].
    """
    steps = np.array([base ** (-place / width) for place in range(width)], np.float32)
    angles = np.outer(np.arange(length, dtype=np.float32), steps).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
