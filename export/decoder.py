"""Export a prompter: any supported source -> ONNX decoder graph, compared with torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from transformers import PretrainedConfig

from alignpro_lite.assembly.factors import read_factors
from alignpro_lite.decoding.ort import open_session
from alignpro_lite.errors import ExportError
from alignpro_lite.export.converters import build_graph, export_reference
from alignpro_lite.export.folder import GRAPH, TOKENIZER
from alignpro_lite.export.logits import OnnxLogits
from alignpro_lite.export.low_rank import (
    GATE,
    UNCHANGED,
    AdapterChanges,
    adapter_changes,
    write_float_graph,
)
from alignpro_lite.export.parity import (
    Bar,
    Reference,
    compare_gguf,
    compare_logits,
    reference_of,
    require_parity,
)
from alignpro_lite.export.quantise import MIXES, eight_bits, mixed_bits, quantise_graph
from alignpro_lite.export.rotary import settle_rotary
from alignpro_lite.hardware.device import Device
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.pretrained.folder import ARCHITECTURES
from alignpro_lite.pretrained.merging import attach_adapter, merge_attached
from alignpro_lite.pretrained.torch_model import TorchModel, load_torch_model
from alignpro_lite.prompter.bundle import CacheLayout, Graph, IoDtype, Parity, Tokens
from alignpro_lite.prompter.card import MadeDecoder, read_prompter_card
from alignpro_lite.registry.entries import Precision

BARS: dict[Precision, Bar] = {
    "fp32": Bar(0.99, 1.01),
    "fp16": Bar(0.99, 1.01),
    "int8": Bar(0.97, 1.03),
    "int4": Bar(0.95, 1.03),
}

_Writer = Callable[[Path, Path, AdapterChanges], None]
"""Writes a graph from a float graph and what an adapter changed in it."""
_IO_DTYPES: dict[str, IoDtype] = {"tensor(float)": "float32", "tensor(float16)": "float16"}
_FINER: dict[Precision, str] = {"int4": "int8", "int8": "fp16", "fp16": "fp32"}


@dataclass(frozen=True)
class _Floats:
    """A float graph on disk, from which graphs of any precision are written.

    Attributes:
        source: The model, with its adapter merged; its weights are in the graph alone.
        graph: Its graph.
        layout: How the graph keeps its cache.
        changes: What the adapter changed in it.
        reference: What graphs are compared with: the model in torch, with its adapter as peft
            runs it, before it was merged.
    """

    source: TorchModel
    graph: Path
    layout: CacheLayout
    changes: AdapterChanges
    reference: Reference


def export_decoder(
    source: Path,
    adapter: Path | None,
    precision: Precision,
    device: Device,
    out_dir: Path,
    allow_mismatch: bool = False,
    note: Callable[[str], None] = lambda stage: None,
) -> MadeDecoder:
    """Export a causal language model as a decoder graph.

    Args:
        source: A Hugging Face folder or a GGUF file.
        adapter: A peft adapter's folder, or None; it is merged, or kept apart from the weights.
        precision: Of the weights.
        device: What the graph is for: "cuda" has a half-precision cache.
        out_dir: An existing folder for the files; after an error the caller discards it.
        allow_mismatch: Keep a graph that disagrees with torch; the result records it.
        note: Called with each progress message.

    Returns:
        What the runtime must know about the files in `out_dir`.

    Raises:
        ExportError: The source cannot be read or exported, or the graph disagrees with torch.
        BundleError: onnxruntime cannot load the graph.
        MissingDependencyError: onnxruntime-genai is not installed.
    """
    note(f"reading {source.name}")
    loaded = load_torch_model(source)
    own = None
    if source.is_file():
        own = reference_of(loaded)
        # llama.cpp rounds activations, so quantised files do not agree with torch exactly.
        read = compare_gguf(own, source, Bar(0.9))
        advice = "Export from the model's Hugging Face folder."
        require_parity(read, f"What transformers reads from {source}", advice)
    note(f"writing the {precision} graph")
    own = own if adapter is None else None  # large, and of no more use
    half = precision == "fp16" or (device == "cuda" and precision != "fp32")
    with tempfile.TemporaryDirectory(dir=out_dir, prefix=".work-") as work:
        floats = _float_graph_of(loaded, own, adapter, half, Path(work))
        for write in _writers(precision):
            write(floats.graph, out_dir / GRAPH, floats.changes)
            note("comparing it with torch")
            graph, parity = _compared(floats, precision, device, out_dir)
            if not parity.mismatch_allowed:
                break
            note(parity.summary())
    floats.source.tokenizer.save(str(out_dir / TOKENIZER))
    if not allow_mismatch:
        finer = _FINER.get(precision)
        advice = f"Use --precision {finer}, or add" if finer else "Add"
        require_parity(parity, f"The {precision} graph", f"{advice} --allow-mismatch to keep it.")
    return MadeDecoder(graph, tokens_of(floats.source), parity)


def _writers(precision: Precision) -> Sequence[_Writer]:
    """The ways to write a graph of a precision, the smallest first."""
    match precision:
        case "int4":
            return [partial(quantise_graph, choose=mixed_bits(rounded)) for rounded in MIXES]
        case "int8":
            return [partial(quantise_graph, choose=eight_bits)]
        case _:
            return [write_float_graph]


def _compared(
    floats: _Floats, precision: Precision, device: Device, out_dir: Path
) -> tuple[Graph, Parity]:
    """Describe the graph in `out_dir`, and compare it with torch."""
    cure = "Try another --precision, or report the architecture."
    session = open_session(out_dir / GRAPH, usable_cores(), cure=cure)
    graph = _graph_of(session, floats.source.model.config, floats.layout, precision, device)
    exported = OnnxLogits(session, graph)
    return graph, compare_logits(floats.reference, exported, BARS[precision], exported.greedy)


def _graph_of(
    session: Any,
    config: PretrainedConfig,
    layout: CacheLayout,
    precision: Precision,
    device: Device,
) -> Graph:
    """Describe a written graph by its inputs and outputs, and by the model's configuration."""
    inputs = {entry.name: entry for entry in session.get_inputs()}
    past = [entry for name, entry in inputs.items() if name.startswith("past_key_values")]
    explicit: int | None = getattr(config, "head_dim", None)  # the graph may leave it open
    return Graph(
        file=GRAPH,
        cache=layout,
        device=device,
        precision=precision,
        io_dtype=_IO_DTYPES[past[0].type],
        layers=len(past) // 2,
        kv_heads=int(past[0].shape[1]),
        head_dim=explicit or config.hidden_size // config.num_attention_heads,
        vocab=int(session.get_outputs()[0].shape[-1]),
        max_length=_max_length(config),
        gate=GATE if GATE in inputs else None,
    )


def tokens_of(source: TorchModel) -> Tokens:
    """The special tokens of a source, as a bundle records them."""
    special = source.special
    named = {"bos_token": special.bos, "eos_token": special.eos}
    return Tokens(
        file=TOKENIZER,
        bos=special.bos if special.add_bos else None,
        # The first one ends a scored rewrite, so it must be the model's own end of turn.
        stop=(special.eos, *(token for token in special.stop if token != special.eos)),
        chat_template=source.chat_template,
        names={
            name: str(source.tokenizer.id_to_token(token))
            for name, token in named.items()
            if token is not None
        },
    )


def _float_graph_of(
    source: TorchModel,
    own: Reference | None,
    adapter: Path | None,
    half: bool,
    work: Path,
) -> _Floats:
    """Write the float graph of a model under `work`.

    Args:
        source: The model; its weights are given up.
        own: What it computes without an adapter, where that is known already.
        adapter: See `export_decoder`.
        half: Whether weights, cache and logits have 16 bits.
        work: An existing folder.
    """
    base = _saved(source, work / "base")
    if adapter is None:
        reference = own or reference_of(source)
        graph, layout = _float_graph(base, source, half)
        return _Floats(source, graph, layout, UNCHANGED, reference)
    adapted = attach_adapter(source.model, adapter)
    reference = reference_of(replace(source, model=cast(Any, adapted)))
    source = replace(source, model=merge_attached(adapted))
    tuned = _saved(source, work / "tuned")
    before, _ = _float_graph(base, source, half)
    graph, layout = _float_graph(tuned, source, half)
    card = read_prompter_card(adapter)
    rank = card.reference_rank if card else 0
    changes = adapter_changes(before, graph, read_factors(adapter), rank)
    return _Floats(source, graph, layout, changes, reference)


def _saved(source: TorchModel, work: Path) -> Path:
    """Write a source as a Hugging Face folder under `work`."""
    folder = work / "model"
    folder.mkdir(parents=True)
    source.save_folder(folder)
    return folder


def _float_graph(folder: Path, source: TorchModel, half: bool) -> tuple[Path, CacheLayout]:
    """Write the unquantised graph of a saved source beside it; its weights here are given up."""
    # The builder's process loads them from the files, and makes a second copy: a third has no
    # place in memory.
    source.model.to_empty(device="meta")
    built = folder.with_name("graph")
    built.mkdir()
    architecture = type(source.model).__name__
    if architecture in ARCHITECTURES:
        graph = build_graph(folder, built, "fp16" if half else "fp32")
        if base := getattr(source.model.config, "rope_theta", None):
            settle_rotary(graph, float(base))
        return graph, "shared"
    if half:
        raise ExportError(
            f"{architecture} cannot be exported in half precision.",
            "Use --device cpu with --precision int4, int8 or fp32.",
        )
    return export_reference(folder, built, "text-generation-with-past"), "growing"


def _max_length(config: PretrainedConfig) -> int:
    """The original length: the graph lacks the rescaled rotary caches of positions beyond it."""
    original: int | None = getattr(config, "original_max_position_embeddings", None)
    return original or int(config.max_position_embeddings)
