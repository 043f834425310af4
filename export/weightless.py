"""Take the weights out of an exported bundle: what is left can be shipped, and filled again."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx

from alignpro_lite.assembly.assemble import DATA_SUFFIX, Parts, fill_graph
from alignpro_lite.assembly.factors import WEIGHTS
from alignpro_lite.assembly.graphs import (
    FORMAT,
    MANIFEST,
    FactorsPiece,
    GraphManifest,
    Piece,
    ProductPiece,
    RotaryPiece,
    Rows,
    VectorPiece,
)
from alignpro_lite.assembly.names import modules_of
from alignpro_lite.assembly.packing import Bits
from alignpro_lite.errors import ExportError
from alignpro_lite.export.rotary import TABLES
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.bundle import Bundle
from alignpro_lite.registry.digests import check_files
from alignpro_lite.registry.record import write_record
from alignpro_lite.registry.storage import no_progress, sha256_of

_TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""llama.cpp's names of modules."""
_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
_INTERLEAVED = {"llama": {"attn_q": "head_count", "attn_k": "head_count_kv"}}
"""Tensors whose rotary halves are interleaved in files of an architecture, and their heads."""


def keep_graph(made: Bundle, gguf: Path, adapter: Path | None, shell: Path) -> None:
    """Write the graph of an exported bundle without its weights, if it can be assembled again.

    Args:
        made: What the export with torch wrote.
        gguf: What it was made from.
        adapter: The adapter, or None.
        shell: The folder to write; what is there is replaced.

    Raises:
        ExportError: It cannot be told what the data are made of, or they come out differently.
    """
    sidecar = made.sidecar
    manifest = GraphManifest(
        format=FORMAT,
        source=sha256_of(gguf, gguf.name),
        adapter=sha256_of(adapter / WEIGHTS, WEIGHTS) if adapter else None,
        graph=sidecar.graph,
        tokens=sidecar.tokens,
        parity=sidecar.parity,
        n_bytes=made.graph_file.with_name(sidecar.graph.file + DATA_SUFFIX).stat().st_size,
        pieces=tuple(pieces_of(made.graph_file, read_header(gguf))),
    )
    shutil.rmtree(shell, ignore_errors=True)
    shell.mkdir(parents=True)
    shutil.copyfile(made.graph_file, shell / sidecar.graph.file)
    write_record(shell / MANIFEST, manifest)
    with tempfile.TemporaryDirectory() as again:
        fill_graph(Parts(shell, manifest, gguf, adapter), Path(again), no_progress)
        checks = check_files(Path(again), sidecar.files)
        different = [check.path.name for check in checks if check.state != "ok"]
    if different:
        shutil.rmtree(shell)
        raise ExportError(
            f"Assembled from {gguf}, {', '.join(different)} would not equal the export.",
            "Export the bundle with torch wherever it is used.",
        )


def pieces_of(graph: Path, gguf: GgufFile) -> Iterator[Piece]:
    """What the data of a graph are made of, in the order of the graph."""
    model = onnx.load(graph, load_external_data=False)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    offsets = {
        tensor.name: int({entry.key: entry.value for entry in tensor.external_data}["offset"])
        for tensor in stored.values()
        if tensor.external_data
    }
    base = gguf.metadata.get(f"{gguf.architecture}.rope.freq_base", 10_000.0)
    assert isinstance(base, float)
    for name, offset in offsets.items():
        if found := re.fullmatch(r"(.+)_q([48])", name):
            if name != "embedding_q8":  # the bytes of the head, by a second name
                yield _product(found[1], 8 if found[2] == "8" else 4, offsets, gguf)
        elif name == TABLES[0]:
            length, width = stored[name].dims
            yield RotaryPiece(base, length, width, offset, offsets[TABLES[1]])
        elif found := re.fullmatch(r"/(.+)/left", name):
            weight = found[1].replace("/", ".") + ".weight"
            yield FactorsPiece(modules_of(weight), offset, offsets[f"/{found[1]}/right"])
        elif not re.search(r"_scales$|_zeros$|/right$|^sin_cache$", name):
            yield VectorPiece(_vector(name), offset)


def _product(weight: str, bits: Bits, offsets: Mapping[str, int], gguf: GgufFile) -> ProductPiece:
    names = {tensor.name for tensor in gguf.tensors}
    if modules := modules_of(weight):
        tensors = tuple(f"{_tensor(module)}.weight" for module in modules)
    elif weight.startswith("lm_head") and "output.weight" in names:
        tensors = ("output.weight",)
    else:
        tensors = ("token_embd.weight",)
    return ProductPiece(
        rows=tuple(Rows(tensor, _heads(tensor, gguf)) for tensor in tensors),
        bits=bits,
        values=offsets[f"{weight}_q{bits}"],
        scales=offsets[f"{weight}_scales"],
        zeros=offsets.get(f"{weight}_zeros"),
    )


def _tensor(module: str) -> str:
    layer, name = module.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_TENSORS[name]}"


def _vector(name: str) -> tuple[str, ...]:
    """The tensors of a norm or a bias."""
    if name.endswith("final_norm_layernorm.weight"):
        return ("output_norm.weight",)
    if found := re.fullmatch(r"model\.layers\.(\d+)\.(\w+_layernorm)\.weight", name):
        return (f"blk.{found[1]}.{_NORMS[found[2]]}.weight",)
    if name.endswith(".Add.bias"):
        modules = modules_of(name.replace(".Add.bias", ".MatMul.weight"))
        return tuple(f"{_tensor(module)}.bias" for module in modules)
    raise ExportError(
        f"Nothing is known of {name} in the graph.",
        "Export the bundle with torch wherever it is used.",
    )


def _heads(tensor: str, gguf: GgufFile) -> int | None:
    key = _INTERLEAVED.get(gguf.architecture, {}).get(tensor.split(".")[-2])
    return gguf.count(f"attention.{key}") if key else None
