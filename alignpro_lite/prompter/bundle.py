"""The bundle: a folder that holds a prompter, and the sidecar that describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import InputError
from alignpro_lite.hardware.device import Device
from alignpro_lite.prompter.profile import DOUBT, PrompterProfile
from alignpro_lite.prompter.targets import TargetClaim
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.registry.entries import Precision
from alignpro_lite.registry.record import Record, TokenId, UnitInterval
from alignpro_lite.registry.sidecar import SidecarFile

CacheLayout = Literal["shared", "growing"]
IoDtype = Literal["float32", "float16"]
Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Width = Annotated[int, Meta(ge=1, le=2**16)]
"""Of an axis whose length the graph need not state, so that nothing else bounds it."""


class Graph(Record):
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
            is ρ_θ, at 0 it is ρ_sft. None if there is no adapter or it is merged into the weights.
    """

    file: str
    cache: CacheLayout
    device: Device
    precision: Precision
    io_dtype: IoDtype
    layers: Width
    kv_heads: Width
    head_dim: Width
    vocab: Size
    max_length: Size
    gate: str | None


class Tokens(Record):
    """Special tokens and how a prompt is tokenised.

    Attributes:
        file: The tokenizer file, relative to the bundle.
        bos: Id put first when the template does not, or None.
        stop: Ids that end a rewrite.
        chat_template: The base model's Jinja template, or None.
        names: Values for template names such as `bos_token`.
    """

    file: str
    bos: TokenId | None
    stop: Annotated[tuple[TokenId, ...], Meta(min_length=1)]
    chat_template: str | None
    names: Mapping[str, str]


class Parity(Record):
    """How close the graph is to the torch model it was made from.

    Attributes:
        positions: Tokens of real text compared.
        argmax_agreement: Share of positions with the same most likely token.
        required: The share that this precision has to reach.
        perplexity_ratio: Perplexity of that text under the graph, divided by that under torch.
        max_logit_error: Largest absolute difference of a logit.
        greedy_agreement: Share of greedily generated tokens that agree before the first difference.
        mismatch_allowed: True if it was below and written all the same.
    """

    positions: int
    argmax_agreement: float
    required: float
    perplexity_ratio: float
    max_logit_error: float
    greedy_agreement: float
    mismatch_allowed: bool

    def summary(self) -> str:
        """The figures in one line."""
        return (
            f"argmax agreement {self.argmax_agreement:.2%} over {self.positions} positions "
            f"(required {self.required:.0%}), perplexity {self.perplexity_ratio:.3f} of torch's, "
            f"logit error at most {self.max_logit_error:.3g}, "
            f"greedy text equal for {self.greedy_agreement:.0%} of its tokens"
        )


class Provenance(Record):
    """What the prompter was made from.

    Attributes:
        base_model: Name of the base model.
        adapter: Name of the LoRA adapter that makes ρ_θ of ρ_sft, None for ρ_sft itself.
        strength: The prompter tuning parameter λ it was trained with, None without a reward.
        reward: Name of the reward it was trained on, None if there was none.
        reference: Name of the adapter that makes ρ_sft of the base model, None where ρ_sft is the
            base model. Without an `adapter`, the prompter is supervised and knows no reward; with
            one, both have the same name.
    """

    base_model: str
    adapter: str | None
    strength: float | None
    reward: str | None
    reference: str | None = None


class Sidecar(Record):
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
        targets: For which targets it was trained or measured.
        files: sha256 of every other file of the bundle, by relative name.
        eval_card: Results of an evaluation, empty if none was made.
        doubt: The probability of the empty hint from which the prompter adds nothing.
    """

    format: int
    graph: Graph
    tokens: Tokens
    template: RewriteTemplate
    sampling: Sampling
    max_tokens: Size
    parity: Parity
    provenance: Provenance
    targets: TargetClaim
    files: Mapping[str, str]
    eval_card: Mapping[str, Any]
    doubt: UnitInterval = DOUBT

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the files that are read."""
        return self.graph.file, self.tokens.file

    def __post_init__(self) -> None:
        """Refuse tokens that would reach native code out of range.

        Raises:
            InputError: Names the token.
        """
        for token in (*self.tokens.stop, self.tokens.bos or 0):
            if token >= self.graph.vocab:
                raise InputError(
                    f"tokens must be below the size of the vocabulary, {self.graph.vocab}, found "
                    f"{token}.",
                    "Correct bos and stop.",
                )


PROMPTER_BUNDLE = SidecarFile(
    kind=Sidecar,
    name="bundle.json",
    what="prompter bundle",
    version=5,
    cure="Make it again: one of the package with `alignpro-lite models rm` and `models pull`, "
    "others with `alignpro-lite export bundle` or `export prompter`.",
)


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
    def profile(self) -> PrompterProfile:
        """How its prompter is asked."""
        sidecar, made = self.sidecar, self.sidecar.provenance
        return PrompterProfile(
            name=made.adapter or made.reference or made.base_model,
            template=sidecar.template,
            sampling=sidecar.sampling,
            max_tokens=sidecar.max_tokens,
            is_trained=made.adapter is not None,
            strength=made.strength,
            has_reference=made.adapter is None or sidecar.graph.gate is not None,
            doubt=sidecar.doubt,
        )

    @property
    def n_bytes(self) -> int:
        """Size of all files together."""
        return sum((self.path / name).stat().st_size for name in self.sidecar.files)


def open_bundle(path: Path) -> Bundle:
    """Read a bundle and check every file of it.

    Raises:
        BundleError: Something is missing, altered or of an unknown format.
    """
    return Bundle(path, PROMPTER_BUNDLE.open(path))
