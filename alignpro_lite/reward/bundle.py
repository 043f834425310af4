"""The reward bundle: a folder that holds an exported reward model, and its sidecar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from alignpro_lite.errors import InputError
from alignpro_lite.registry.entries import RewardPrecision
from alignpro_lite.registry.record import Record, TokenId
from alignpro_lite.registry.sidecar import SidecarFile
from alignpro_lite.reward.exchange import ExchangeLayout


class RewardModel(Record):
    """The graph, and how an exchange becomes its input.

    Attributes:
        graph: The ONNX file, relative to the bundle; gives `logits` of shape (n, tokens,
            parts), whose mean over the tokens of an exchange is its score.
        tokenizer: The tokenizer file, relative to the bundle.
        layout: Where prompt and answer go.
        pad: The id that fills short rows.
        parts: Name of each column of the logits.
        precision: Of the weights.
    """

    graph: str
    tokenizer: str
    layout: ExchangeLayout
    pad: TokenId
    parts: Annotated[tuple[str, ...], Meta(min_length=1)]
    precision: RewardPrecision


class RewardParity(Record):
    """How close the graph is to torch; each figure is that of the worst part.

    Attributes:
        exchanges: Exchanges of real text compared.
        correlation: Pearson's, of the scores.
        required_correlation: The least that this precision has to reach.
        pair_agreement: Share of pairs of exchanges that both put in the same order.
        required_agreement: The least that this precision has to reach.
        max_error: Largest absolute difference of a score.
        spread: Standard deviation of torch's scores, to compare the error with.
        mismatch_allowed: True if it was below and written all the same.
    """

    exchanges: int
    correlation: float
    required_correlation: float
    pair_agreement: float
    required_agreement: float
    max_error: float
    spread: float
    mismatch_allowed: bool

    def summary(self) -> str:
        """The figures in one line."""
        return (
            f"correlation {self.correlation:.5f} (required {self.required_correlation:g}), "
            f"{self.pair_agreement:.2%} of pairs in the same order (required "
            f"{self.required_agreement:.1%}), score error max {self.max_error:.3g} at a spread of "
            f"{self.spread:.3g}, over {self.exchanges} exchanges"
        )


class RewardProvenance(Record):
    """What the reward model was made from.

    Attributes:
        base_model: Name of the base model.
        adapter: Name of the LoRA adapter merged into it, None if all weights were trained.
    """

    base_model: str
    adapter: str | None


class RewardSidecar(Record):
    """All that the runtime has to know about a reward bundle.

    Attributes:
        format: Version of this description.
        model: The graph and its input.
        weights: Weight of each part unless the caller says otherwise.
        parity: The comparison with torch.
        provenance: Where it comes from.
        files: sha256 of every other file of the bundle, by relative name.
        card: Held-out metrics of its training.
    """

    format: int
    model: RewardModel
    weights: Mapping[str, float]
    parity: RewardParity
    provenance: RewardProvenance
    files: Mapping[str, str]
    card: Mapping[str, Any]

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the files that are read."""
        return self.model.graph, self.model.tokenizer

    def __post_init__(self) -> None:
        """Refuse weights that do not belong to the parts, or count for nothing.

        Raises:
            InputError: Names them.
        """
        parts = self.model.parts
        if len(set(parts)) < len(parts):
            raise InputError(
                f"parts must be unique, found {', '.join(parts)}.", "Correct the parts."
            )
        if set(self.weights) != set(parts):
            raise InputError(
                f"weights must be those of {', '.join(parts)}, found {', '.join(self.weights)}.",
                "Correct the weights.",
            )
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise InputError(
                    f"the weight of {name} must be a finite number, found {weight}.",
                    "Correct the weight.",
                )


REWARD_BUNDLE = SidecarFile(
    kind=RewardSidecar,
    name="reward.json",
    what="reward bundle",
    version=2,
    cure="Make it again with `alignpro-lite export reward`.",
)
