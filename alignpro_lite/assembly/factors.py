"""The factors of a LoRA adapter as a graph multiplies with them, read from peft's own files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignpro_lite.assembly.packing import Matrix32
from alignpro_lite.errors import BundleError
from alignpro_lite.registry.record import Count, Origin, Record, parse, read_json

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_PREFIX, _DOWN, _UP = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_DTYPES: Mapping[str, np.dtype[np.floating[Any]]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
}
_BEYOND = (
    *("use_dora", "use_rslora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"),
    *("modules_to_save", "lora_bias"),
)
"""Settings under which an update is more than alpha / r times the product of two factors."""


@dataclass(frozen=True)
class Factors:
    """An update of a weight [K, N] as left right.

    Attributes:
        left: [K, r].
        right: [r, N], scaled.
    """

    left: Matrix32
    right: Matrix32


class _Size(Record):
    """What the update is multiplied with: alpha / r."""

    lora_alpha: float
    r: Count


def read_factors(adapter: Path) -> Mapping[str, Factors]:
    """The factors of an adapter by the name of their module, such as `model.layers.0.mlp.up_proj`.

    Args:
        adapter: The folder that peft's `save_pretrained` wrote.

    Returns:
        Nothing for an adapter of another kind than plain LoRA.

    Raises:
        BundleError: Its settings are missing or damaged.
    """
    origin = Origin(adapter / SETTINGS, BundleError, "Restore the file, or train it again.")
    settings = read_json(origin, "peft adapter")
    if settings.get("peft_type") != "LORA" or any(settings.get(name) for name in _BEYOND):
        return {}
    plain = {name: settings[name] for name in ("lora_alpha", "r") if name in settings}
    size = parse(_Size, plain, origin)
    scale = np.float32(size.lora_alpha / size.r)
    tensors = _read_safetensors(adapter / WEIGHTS)
    modules = [name.removesuffix(_DOWN) for name in tensors if name.endswith(_DOWN)]
    return {
        module.removeprefix(_PREFIX): Factors(
            np.ascontiguousarray(tensors[module + _DOWN].T),
            np.ascontiguousarray(tensors[module + _UP].T) * scale,
        )
        for module in modules
        if module + _UP in tensors
    }


def fused(parts: Sequence[Factors]) -> Factors:
    """The factors of weights that a graph keeps as one, side by side along N."""
    rank = sum(part.left.shape[1] for part in parts)
    right = np.zeros((rank, sum(part.right.shape[1] for part in parts)), np.float32)
    row = column = 0
    for part in parts:
        rows, columns = part.right.shape
        right[row : row + rows, column : column + columns] = part.right
        row, column = row + rows, column + columns
    return Factors(np.concatenate([part.left for part in parts], axis=1), right)


def _read_safetensors(file: Path) -> dict[str, Matrix32]:
    """The floats of a safetensors file: the length of a JSON header, the header, the data."""
    raw = file.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    found = {}
    for name, about in header.items():
        if about["dtype"] in _DTYPES:
            first, last = about["data_offsets"]
            values = np.frombuffer(raw[start + first : start + last], _DTYPES[about["dtype"]])
            found[name] = values.reshape(about["shape"]).astype(np.float32)
    return found
