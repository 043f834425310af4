"""Sequences of different length in one batch, for models that continue them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def left_padded(sequences: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask of sequences that end together, both (n, longest), int64.

    The mask follows the lengths: the fill may be a real token of the sequences.
    """
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), fill)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = torch.tensor(sequence)
        mask[row, longest - len(sequence) :] = 1
    return ids, mask


def positions_of(mask: Tensor) -> Tensor:
    """The position of each token in its own sequence, of the shape of the attention mask."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)
