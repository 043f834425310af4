"""Export a prompter's adapter: peft's folder -> GGUF LoRA, for the target it was trained on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import gguf
import numpy as np

from alignpro_lite.assembly.factors import Factors, read_factors
from alignpro_lite.assembly.packing import Matrix32
from alignpro_lite.errors import ExportError
from alignpro_lite.export.folder import refuse_foreign_file, work_beside
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.card import card_of
from alignpro_lite.prompter.lora_file import BASE_KEY, CARD_KEY, LoraFile, open_lora
from alignpro_lite.prompter.targets import KnownTarget
from alignpro_lite.registry.entries import RewriteMode
from alignpro_lite.registry.record import plain
from alignpro_lite.registry.storage import commit

_MODULE = re.compile(r"model\.layers\.(\d+)\.(\w+\.\w+)")
_WEIGHTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""What GGUF calls the linear layers of a block."""
_AS_THEY_ARE = ("qwen2", "qwen3", "gemma2", "gemma3", "phi3")
"""Architectures whose rows stand in a GGUF as in torch."""


def export_lora(
    adapter: Path, target: Path, known: KnownTarget, mode: RewriteMode | None, out_file: Path
) -> LoraFile:
    """Export an adapter so that the target's own weights can use it.

    Args:
        adapter: The folder of a plain LoRA of linear layers, as `train prompter` writes it.
        target: The GGUF file that it was trained on.
        known: Name and digest of that file, which the adapter is held to.
        mode: How its output becomes x'; None for the way of its card, else augment.
        out_file: The file to write; it appears only when it is complete and fits the target.

    Returns:
        What was written.

    Raises:
        ExportError: The adapter is of another kind, or the architecture is not known.
        BundleError: It does not fit the target, or is damaged.
        InputError: Something else than a GGUF file is at `out_file`.
        RegistryError: The disk is full or read-only.
    """
    refuse_foreign_file(out_file)
    base = read_header(target)
    factors = read_factors(adapter)
    if not factors:
        raise ExportError(
            f"Expected a plain LoRA of linear layers at {adapter}, found another adapter.",
            "Export a bundle of it instead: `alignpro-lite export prompter`.",
        )
    card = card_of(known.name, adapter, mode)
    if card.reference_rank and not card.is_reference:
        raise ExportError(
            f"{adapter} holds a reference and what a reward taught above it; llama.cpp applies an "
            "adapter as a whole, so ρ_sft could not be told apart.",
            "Export a bundle of it instead: `alignpro-lite export prompter`.",
        )
    with work_beside(out_file.resolve()) as work:
        written = work / "adapter.gguf"
        writer = gguf.GGUFWriter(written, base.architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(_rank(factors)))  # the factors are scaled
        writer.add_string(BASE_KEY, known.sha256 or "")
        writer.add_string(CARD_KEY, json.dumps(plain(card), ensure_ascii=False))
        for module, part in factors.items():
            weight, reordered = _placed(module, base)
            writer.add_tensor(f"{weight}.lora_a", np.ascontiguousarray(part.left.T))
            writer.add_tensor(f"{weight}.lora_b", np.ascontiguousarray(reordered(part.right.T)))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        open_lora(written, base, known)
        commit(written, out_file.resolve())
    return LoraFile(out_file, out_file.stat().st_size, card)


def _rank(factors: Mapping[str, Factors]) -> int:
    return int(next(iter(factors.values())).left.shape[1])


def _placed(module: str, base: GgufFile) -> tuple[str, Callable[[Matrix32], Matrix32]]:
    """The weight of a module in a GGUF, and how its rows are put into the order there.

    Raises:
        ExportError: The module or the architecture is not known.
    """
    found = _MODULE.fullmatch(module)
    name = _WEIGHTS.get(found[2]) if found else None
    if found is None or name is None:
        raise ExportError(
            f"The adapter changes {module}, which has no known place in a GGUF.",
            "Train an adapter of the linear layers of blocks only.",
        )
    block = int(found[1])
    weight = f"blk.{block}.{name}.weight"
    if base.architecture in _AS_THEY_ARE:
        return weight, _unchanged
    if base.architecture == "llama":
        heads = {"attn_q": base.n_head, "attn_k": base.n_head_kv}.get(name)
        return weight, _by_halves(heads[block]) if heads else _unchanged
    raise ExportError(
        f"How a GGUF of the architecture {base.architecture!r:.40} orders its rows is not known.",
        "Export a bundle instead: `alignpro-lite export prompter`.",
    )


def _unchanged(rows: Matrix32) -> Matrix32:
    return rows


def _by_halves(heads: int) -> Callable[[Matrix32], Matrix32]:
    """The order of Llama's queries and keys: row i of both halves of a head stand together."""

    def reordered(rows: Matrix32) -> Matrix32:
        count, rank = rows.shape
        parts = rows.reshape(heads, 2, count // heads // 2, rank)
        return parts.swapaxes(1, 2).reshape(count, rank)

    return reordered
