"""The bundle: a folder that holds a prompter, and the sidecar that describes it.

The sidecar is the contract between export and runtime. Unknown keys and
versions are refused, every file's sha256 is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import BundleError
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.registry.digests import require_names, require_unaltered
from alignpro_lite.registry.record import parse_record, read_table, require_format, write_record

FORMAT_VERSION = 2
SIDECAR = "bundle.json"
_REMAKE = "Make it again with `alignpro-lite export bundle` or `export prompter`."

Precision = Literal["int4", "int8", "fp16", "fp32"]
Device = Literal["cpu", "cuda"]
CacheLayout = Literal["shared", "growing"]
IoDtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Graph:
    """The decoder graph and the sizes of its buffers.

    Attributes:
        file: The ONNX file, relative to the bundle.
        cache: `shared` reads and writes one KV buffer in place (grouped-query
            attention); `growing` returns a longer copy at every step.
        device: What it was built for, `cpu` or `cuda`.
        precision: Of the weights.
        io_dtype: Of logits and KV cache, `float32` or `float16`.
        layers: Decoder layers.
        kv_heads: Key/value heads a layer.
        head_dim: Numbers a head.
        vocab: Size of the logits.
        max_length: Most tokens of a sequence.
        gate: Name of the input of shape (1,) that multiplies what the adapter adds: at 1 the graph
            is ρ_θ, at 0 it is ρ_sft. None if there is no adapter, or one that is merged for good.
    """

    file: str
    cache: CacheLayout
    device: Device
    precision: Precision
    io_dtype: IoDtype
    layers: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_length: int
    gate: str | None


@dataclass(frozen=True)
class Tokens:
    """Special tokens and how a prompt is tokenised.

    Attributes:
        file: The tokenizer file, relative to the bundle.
        bos: Id put first when the template does not, or None.
        stop: Ids that end a rewrite.
        chat_template: The base model's Jinja template, or None.
        names: Values for template names such as `bos_token`.
    """

    file: str
    bos: int | None
    stop: tuple[int, ...]
    chat_template: str | None
    names: Mapping[str, str]


@dataclass(frozen=True)
class Parity:
    """How close the graph is to the torch model it was made from.

    Attributes:
        positions: Tokens of real text compared.
        argmax_agreement: Share of positions with the same most likely token.
        required: The share that this precision has to reach.
        max_logit_error: Largest absolute difference of a logit.
        greedy_agreement: Share of greedily generated tokens that agree before the first difference.
        mismatch_allowed: True if it was below and written all the same.
    """

    positions: int
    argmax_agreement: float
    required: float
    max_logit_error: float
    greedy_agreement: float
    mismatch_allowed: bool


@dataclass(frozen=True)
class Provenance:
    """What the prompter was made from.

    Attributes:
        base_model: Name of the base model.
        adapter: Name of the LoRA adapter merged into it, None for rho_sft itself.
        strength: The prompter tuning parameter λ it was trained with, None if untrained.
        reward: Name of the reward it was trained on, None if untrained.
    """

    base_model: str
    adapter: str | None
    strength: float | None
    reward: str | None


@dataclass(frozen=True)
class Sidecar:
    """All that the runtime has to know about a bundle.

    Attributes:
        format: Version of this description.
        graph: The decoder.
        tokens: The tokenizer.
        template: The rewrite template.
        sampling: How rewrites are drawn unless the caller says otherwise.
        max_tokens: The most tokens of a rewrite, the stop token included.
        parity: The comparison with torch.
        provenance: Where it comes from.
        files: sha256 of every other file of the bundle, by relative name.
        eval_card: Results of an evaluation, empty if none was made.
    """

    format: int
    graph: Graph
    tokens: Tokens
    template: RewriteTemplate
    sampling: Sampling
    max_tokens: int
    parity: Parity
    provenance: Provenance
    files: Mapping[str, str]
    eval_card: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked."""

    path: Path
    sidecar: Sidecar

    @property
    def graph_file(self) -> Path:
        """The ONNX decoder."""
        return self.path / self.sidecar.graph.file

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer."""
        return self.path / self.sidecar.tokens.file

    @property
    def n_bytes(self) -> int:
        """Size of all files together."""
        return sum((self.path / name).stat().st_size for name in self.sidecar.files)


def open_bundle(path: Path) -> Bundle:
    """Read a bundle and check every file of it.

    Raises:
        BundleError: Something is missing, altered or of an unknown format.
    """
    bundle = Bundle(path, read_sidecar(path))
    require_unaltered(path, bundle.sidecar.files, _REMAKE)
    return bundle


def read_sidecar(path: Path) -> Sidecar:
    """Read the description of a bundle without touching its other files.

    Raises:
        BundleError: It is missing or not understood.
    """
    file = path / SIDECAR
    raw = read_table(file, "prompter bundle", _REMAKE)
    require_format(raw, FORMAT_VERSION, file, _REMAKE)
    sidecar = parse_record(Sidecar, raw, file, _REMAKE)
    require_names(sidecar.files, (sidecar.graph.file, sidecar.tokens.file), file, _REMAKE)
    _check_values(sidecar, file)
    return sidecar


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write the description into a bundle under construction."""
    write_record(path / SIDECAR, sidecar)


def _check_values(sidecar: Sidecar, file: Path) -> None:
    """Sizes and ids that would reach native code are in range."""
    graph, tokens = sidecar.graph, sidecar.tokens
    sizes = (graph.layers, graph.kv_heads, graph.head_dim, graph.vocab, graph.max_length)
    ids = (*tokens.stop, *(() if tokens.bos is None else (tokens.bos,)))
    wrong = {
        "a size below 1": min(*sizes, sidecar.max_tokens) < 1,
        "no stop token": not tokens.stop,
        "a token outside its vocabulary": not all(0 <= token < graph.vocab for token in ids),
        "a template without {prompt}": "{prompt}" not in sidecar.template.request,
    }
    for what, found in wrong.items():
        if found:
            raise BundleError(f"{file} has {what}.", _REMAKE)
