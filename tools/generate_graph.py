"""Write the graph without weights of a bundle: `python -m tools.generate_graph NAME`.

NAME is a bundle of models.toml whose prompter is pulled. It is exported with torch, what its data
are made of is told by the names in the graph, and the result is kept in `alignpro_lite/graphs/NAME`
only if a bundle that is assembled from it equals the export to the byte.
"""

from __future__ import annotations

import re
import shutil
import sys
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
    SumsPiece,
    VectorPiece,
)
from alignpro_lite.assembly.names import modules_of
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.export.rotary import TABLES
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.prompter.bundle import Bundle
from alignpro_lite.registry import BundleRecipe, ModelStore
from alignpro_lite.registry.digests import check_files
from alignpro_lite.registry.record import write_record
from alignpro_lite.registry.storage import no_progress, sha256_of

GRAPHS = Path("alignpro_lite/graphs")

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


def main(name: str) -> None:
    """Export a bundle and keep its graph."""
    store = ModelStore.open()
    entry = store.registry.find("bundle", name)
    recipe = entry.recipe
    assert isinstance(recipe, BundleRecipe)
    gguf = store.cache.installed_path(store.registry.downloadable(entry))
    request = BundleRequest(
        source=gguf,
        base_model=recipe.prompter,
        adapter=recipe.adapter,
        mode=recipe.mode,
        precision=recipe.precision,
        device="cpu",
        allow_mismatch=False,
    )
    with tempfile.TemporaryDirectory() as work:
        made = export_bundle(request, Path(work, "bundle"), note=print)
        keep_graph(made, gguf, recipe.adapter, GRAPHS / name)


def keep_graph(made: Bundle, gguf: Path, adapter: Path | None, shell: Path) -> None:
    """Write the graph of an exported bundle without its weights, if it can be assembled again.

    Args:
        made: What the export with torch wrote.
        gguf: What it was made from.
        adapter: The adapter, or None.
        shell: The folder to write; what is there is replaced.
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
        different = [c.path.name for c in check_files(Path(again), sidecar.files) if c.state != "ok"]
    if different:
        shutil.rmtree(shell)
        sys.exit(f"Assembled, {', '.join(different)} would not equal the export.")


def pieces_of(graph: Path, gguf: GgufFile) -> Iterator[Piece]:
    """What the data of a graph are made of, in the order of the graph."""
    model = onnx.load(graph, load_external_data=False)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    offsets = {
        tensor.name: int({entry.key: entry.value for entry in tensor.external_data}["offset"])
        for tensor in stored.values()
        if tensor.external_data
    }
    base = float(gguf.metadata.get(f"{gguf.architecture}.rope.freq_base", 10_000.0))  # type: ignore[arg-type]
    for name, offset in offsets.items():
        if found := re.fullmatch(r"(.+)_q([48])", name):
            if name != "embedding_q8":  # the bytes of the head, by a second name
                yield _product(found[1], int(found[2]), offsets, gguf)
        elif name == TABLES[0]:
            length, width = stored[name].dims
            yield RotaryPiece(base, length, width, offset, offsets[TABLES[1]])
        elif found := re.fullmatch(r"block_sums_(\d+)", name):
            yield SumsPiece(int(found[1]), offset)
        elif found := re.fullmatch(r"/(.+)/left", name):
            weight = found[1].replace("/", ".") + ".weight"
            yield FactorsPiece(modules_of(weight), offset, offsets[f"/{found[1]}/right"])
        elif not re.search(r"_scales$|_zeros$|/right$|^sin_cache$", name):
            yield VectorPiece(_vector(name), offset)


def _product(weight: str, bits: int, offsets: Mapping[str, int], gguf: GgufFile) -> ProductPiece:
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
    if found := re.fullmatch(r"model\.layers\.(\d+)\.(\w+)\.weight", name):
        return (f"blk.{found[1]}.{_NORMS[found[2]]}.weight",)
    if name.endswith("final_norm_layernorm.weight"):
        return ("output_norm.weight",)
    if name.endswith(".Add.bias"):
        modules = modules_of(name.replace(".Add.bias", ".MatMul.weight"))
        return tuple(f"{_tensor(module)}.bias" for module in modules)
    sys.exit(f"Nothing is known of {name}.")


def _heads(tensor: str, gguf: GgufFile) -> int | None:
    key = _INTERLEAVED.get(gguf.architecture, {}).get(tensor.split(".")[-2])
    return gguf.count(f"attention.{key}") if key else None


if __name__ == "__main__":
    main(sys.argv[1])
