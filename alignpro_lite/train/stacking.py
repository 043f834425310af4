"""A trained adapter on top of its reference, as one adapter whose ranks stand side by side.

ρ_θ is the base with both updates, so one adapter of both ranks is ρ_θ for every tool that knows
peft's files. The ranks of the reference come first, and the card says how many they are: a graph
that switches off the others is ρ_sft.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from alignpro_lite.assembly.factors import SETTINGS, WEIGHTS, Factors, read_factors
from alignpro_lite.errors import InputError
from alignpro_lite.registry.storage import write_text

_HALF = np.float16


def stack_on(reference: Path, folder: Path) -> int:
    """Put the ranks of a reference before those of the adapter that was trained on it, in place.

    Args:
        reference: The folder of an adapter of plain LoRA.
        folder: The folder of the trained one, as `save_adapter` wrote it.

    Returns:
        The ranks of the reference.

    Raises:
        InputError: The reference is another kind of adapter.
        BundleError: Its files are damaged.
    """
    below, above = read_factors(reference), read_factors(folder)
    if not below:
        raise InputError(
            f"A reference must be an adapter of plain LoRA, found another kind in {reference}.",
            "Train one with `alignpro-lite train reference`.",
        )
    rank = _rank_of(below)
    whole = rank + _rank_of(above)
    tensors = {}
    for module in sorted(below.keys() | above.keys()):
        factors = _stacked(below.get(module), above.get(module), whole - rank, rank)
        name = f"base_model.model.{module}"
        tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(factors.left.T.astype(_HALF))
        tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(factors.right.T.astype(_HALF))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    settings = json.loads((folder / SETTINGS).read_text("utf-8"))
    # The factors are scaled already.
    settings |= {"r": whole, "lora_alpha": whole, "target_modules": sorted(_names(below, above))}
    write_text(folder / SETTINGS, json.dumps(settings, indent=2) + "\n")
    return rank


def _stacked(below: Factors | None, above: Factors | None, high: int, low: int) -> Factors:
    """The factors of one module, with zeros for the ranks of an adapter that leaves it alone."""
    below = below or _nothing(above, low)
    above = above or _nothing(below, high)
    return Factors(
        np.concatenate([below.left, above.left], axis=1),
        np.concatenate([below.right, above.right], axis=0),
    )


def _nothing(like: Factors | None, rank: int) -> Factors:
    assert like is not None
    rows, columns = like.left.shape[0], like.right.shape[1]
    return Factors(np.zeros((rows, rank), np.float32), np.zeros((rank, columns), np.float32))


def _rank_of(factors: Mapping[str, Factors]) -> int:
    return int(next(iter(factors.values())).left.shape[1])


def _names(*adapters: Mapping[str, Factors]) -> set[str]:
    """The last parts of the names of all modules."""
    return {module.rpartition(".")[2] for factors in adapters for module in factors}
