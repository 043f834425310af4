"""Write GGUF files for tests: true headers, and weights that take no room on disk."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.gguf.header import TENSOR_TYPES

Value = bool | int | float | str | Sequence[int] | Sequence[str]
TYPE_IDS = {name: number for number, (name, _, _) in TENSOR_TYPES.items()}
ALIGNMENT = 32


@dataclass(frozen=True)
class TensorSpec:
    name: str
    shape: tuple[int, ...]
    type: str = "F32"

    @property
    def n_bytes(self) -> int:
        _, block, block_bytes = TENSOR_TYPES[TYPE_IDS[self.type]]
        return math.prod(self.shape) // block * block_bytes


def header(metadata: Mapping[str, Value], tensors: Sequence[TensorSpec], version: int = 3) -> bytes:
    """Everything before the weights, padded to where they start."""
    parts = [b"GGUF", struct.pack("<IQQ", version, len(tensors), len(metadata))]
    parts += [
        _text(key) + (_u16(value) if key in ("split.no", "split.count") else _value(value))
        for key, value in metadata.items()
    ]
    offset = 0
    for tensor in tensors:
        parts.append(_text(tensor.name) + struct.pack("<I", len(tensor.shape)))
        parts.append(struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape))
        parts.append(struct.pack("<IQ", TYPE_IDS[tensor.type], offset))
        offset += _padded(tensor.n_bytes)
    return _pad(b"".join(parts))


def write(path: Path, metadata: Mapping[str, Value], tensors: Sequence[TensorSpec] = ()) -> Path:
    """Write a whole file; its weights are a hole, so 5 GB of them cost nothing."""
    beginning = header(metadata, tensors)
    with path.open("wb") as file:
        file.write(beginning)
        file.truncate(len(beginning) + sum(_padded(tensor.n_bytes) for tensor in tensors))
    return path


def decoder(
    *,
    name: str,
    n_layers: int,
    embedding: int,
    feed_forward: int,
    n_head: int,
    n_head_kv: int,
    vocab: int,
    context: int,
    matrix_type: str,
    embedding_type: str,
    output_type: str | None,
) -> tuple[dict[str, Value], list[TensorSpec]]:
    """Metadata and tensors of a Llama-like model; no output type means tied embeddings."""
    metadata: dict[str, Value] = {
        "general.architecture": "llama",
        "general.type": "model",
        "general.name": name,
        "llama.block_count": n_layers,
        "llama.context_length": context,
        "llama.embedding_length": embedding,
        "llama.feed_forward_length": feed_forward,
        "llama.attention.head_count": n_head,
        "llama.attention.head_count_kv": n_head_kv,
        "llama.vocab_size": vocab,
        "tokenizer.ggml.model": "gpt2",
    }
    kv_width = embedding // n_head * n_head_kv
    matrices = {
        "attn_q": (embedding, embedding),
        "attn_k": (embedding, kv_width),
        "attn_v": (embedding, kv_width),
        "attn_output": (embedding, embedding),
        "ffn_gate": (embedding, feed_forward),
        "ffn_up": (embedding, feed_forward),
        "ffn_down": (feed_forward, embedding),
    }
    tensors = [TensorSpec("token_embd.weight", (embedding, vocab), embedding_type)]
    for block in range(n_layers):
        tensors += [
            TensorSpec(f"blk.{block}.{part}_norm.weight", (embedding,)) for part in ("attn", "ffn")
        ]
        tensors += [
            TensorSpec(f"blk.{block}.{part}.weight", shape, matrix_type)
            for part, shape in matrices.items()
        ]
    tensors.append(TensorSpec("output_norm.weight", (embedding,)))
    if output_type is not None:
        tensors.append(TensorSpec("output.weight", (embedding, vocab), output_type))
    return metadata, tensors


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, map(str, value)))
    return struct.pack(f"<IIQ{len(value)}i", 9, 5, len(value), *map(int, value))


def _u16(value: Value) -> bytes:
    assert isinstance(value, int)
    return struct.pack("<IH", 2, value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pad(data: bytes) -> bytes:
    return data.ljust(_padded(len(data)), b"\0")


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // ALIGNMENT) * ALIGNMENT
