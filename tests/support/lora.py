"""GGUF LoRA adapters to the tiny target, and the same updates merged into its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.support import TINY_TARGET, gguf_edit

RANK = 4
ALPHA = 8.0
WEIGHTS = ("blk.0.attn_q.weight", "blk.1.ffn_down.weight")


def factors(seed: int = 0, size: float = 0.3) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A [r, in] and B [out, r] of each weight."""
    random = np.random.default_rng(seed)
    shapes = {tensor.name.decode(): tensor.shape for tensor in gguf_edit.read(TINY_TARGET).tensors}
    return {
        name: (
            random.normal(0, size, (RANK, shapes[name][0])).astype(np.float32),
            random.normal(0, size, (shapes[name][1], RANK)).astype(np.float32),
        )
        for name in WEIGHTS
    }


def write_lora(
    path: Path,
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write an adapter; `metadata` adds to or replaces what its header says."""
    model = gguf_edit.EditableGguf()
    said = {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}
    for key, text in (said | dict(metadata or {})).items():
        model.metadata[key.encode()] = (gguf_edit.TEXT, text.encode())
    model.metadata[b"adapter.lora.alpha"] = (gguf_edit.F32, ALPHA)
    for name, (down, up) in parts.items():
        for end, values in ((".lora_a", down), (".lora_b", up)):
            shape = list(values.shape[::-1])
            model.tensors.append(
                gguf_edit.EditableTensor((name + end).encode(), shape, 0, values.tobytes())
            )
    return model.write(path)


def write_merged(path: Path, parts: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Write the tiny target with an adapter merged into its weights, those in 32 bits."""
    model = gguf_edit.read(TINY_TARGET)
    for tensor in model.tensors:
        if (found := parts.get(tensor.name.decode())) is not None:
            down, up = found
            weight = np.frombuffer(tensor.data, np.float16)[: down.shape[1] * up.shape[0]]
            base = weight.reshape(up.shape[0], down.shape[1]).astype(np.float32)
            merged = base + ALPHA / RANK * (up @ down)
            tensor.type, tensor.data = 0, merged.astype(np.float32).tobytes()
    return model.write(path)
