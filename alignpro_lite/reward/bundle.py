"""The reward bundle: a folder that holds an exported reward model, and its sidecar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignpro_lite.errors import BundleError
from alignpro_lite.registry.digests import require_names, require_unaltered
from alignpro_lite.registry.record import parse_record, read_table, require_format, write_record
from alignpro_lite.reward.exchange import ExchangeLayout

REWARD_FORMAT = 2
REWARD_SIDECAR = "reward.json"
_REMAKE = "Make it again with `alignpro-lite export reward`."

RewardPrecision = Literal["int8", "fp32"]


@dataclass(frozen=True)
class RewardModel:
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
    pad: int
    parts: tuple[str, ...]
    precision: RewardPrecision


@dataclass(frozen=True)
class RewardParity:
    """How close the graph is to torch; each figure is that of the worst part.

    Attributes:
        exchanges: Exchanges of real text compared.
        correlation: Pearson's, of the scores.
        required_correlation: The least that this precision has to reach.
        pair_agreement: Share of pairs of exchanges that both put in the same order.
        required_agreement: The least that this precision has to reach.
        max_error: Largest absolute difference of a score.
        spread: Standard deviation of torch's scores, to hold the error against.
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


@dataclass(frozen=True)
class RewardProvenance:
    """What the reward model was made from.

    Attributes:
        base_model: Name of the base model.
        adapter: Name of the LoRA adapter merged into it, None if all weights were trained.
    """

    base_model: str
    adapter: str | None


@dataclass(frozen=True)
class RewardSidecar:
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


@dataclass(frozen=True)
class RewardBundle:
    """A reward bundle whose files have been checked."""

    path: Path
    sidecar: RewardSidecar


def open_reward_bundle(path: Path) -> RewardBundle:
    """Read a reward bundle and check every file of it.

    Raises:
        BundleError: Something is missing, altered or of an unknown format.
    """
    sidecar = read_reward_sidecar(path)
    require_unaltered(path, sidecar.files, _REMAKE)
    return RewardBundle(path, sidecar)


def read_reward_sidecar(path: Path) -> RewardSidecar:
    """Read the description of a reward bundle without touching its other files.

    Raises:
        BundleError: It is missing or not understood.
    """
    file = path / REWARD_SIDECAR
    raw = read_table(file, "reward bundle", _REMAKE)
    require_format(raw, REWARD_FORMAT, file, _REMAKE)
    sidecar = parse_record(RewardSidecar, raw, file, _REMAKE)
    require_names(sidecar.files, (sidecar.model.graph, sidecar.model.tokenizer), file, _REMAKE)
    _check_values(sidecar, file)
    return sidecar


def write_reward_sidecar(path: Path, sidecar: RewardSidecar) -> None:
    """Write the description into a reward bundle under construction."""
    write_record(path / REWARD_SIDECAR, sidecar)


def _check_values(sidecar: RewardSidecar, file: Path) -> None:
    """Names match, and ids and sizes are in range."""
    model, layout = sidecar.model, sidecar.model.layout
    ids = (model.pad, *layout.before, *layout.between, *layout.after)
    wrong = {
        "no parts, or one of them twice": not 0 < len(model.parts) == len(set(model.parts)),
        "weights for other parts than its own": set(sidecar.weights) != set(model.parts),
        "a weight that is no finite number": not all(
            math.isfinite(weight) for weight in sidecar.weights.values()
        ),
        "a token below 0": min(ids) < 0,
        "a size below 1": min(layout.prompt_tokens, layout.answer_tokens) < 1,
    }
    for what, found in wrong.items():
        if found:
            raise BundleError(f"{file} has {what}.", _REMAKE)
