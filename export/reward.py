"""Export a trained reward model: torch -> ONNX, compared on real text."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from alignpro_lite.errors import ExportError
from alignpro_lite.export.converters import export_reference
from alignpro_lite.export.folder import GRAPH, TOKENIZER, refuse_loss, whole_folder
from alignpro_lite.export.low_rank import UNCHANGED
from alignpro_lite.export.quantise import eight_bits, quantise_graph
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.registry.entries import RewardPrecision
from alignpro_lite.reward.bundle import (
    REWARD_BUNDLE,
    RewardModel,
    RewardParity,
    RewardProvenance,
    RewardSidecar,
)
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.onnx_reward import OnnxScorer
from alignpro_lite.reward.torch_reward import ADAPTER, TorchReward, load_trained

REQUIRED: dict[RewardPrecision, tuple[float, float]] = {
    "fp32": (0.9999, 0.999),
    "int8": (0.995, 0.97),
}
"""The lowest correlation that passes, and the lowest share of pairs in the same order."""
MIN_SENTENCE = 20
ANSWER_SENTENCES = 5


@dataclass(frozen=True)
class RewardRequest:
    """What to make a reward bundle from.

    Attributes:
        trained: The folder that `train reward` wrote.
        base: The Hugging Face folder of its base model.
        precision: Of the weights.
        allow_mismatch: Keep a graph that disagrees with torch; the bundle records it.
        part_weights: Weights of named parts in the sum; all other parts weigh 1.
    """

    trained: Path
    base: Path
    precision: RewardPrecision
    allow_mismatch: bool
    part_weights: Mapping[str, float] = field(default_factory=dict)


def export_reward(
    request: RewardRequest,
    destination: Path,
    note: Callable[[str], None] = lambda stage: None,
) -> RewardSidecar:
    """Make a reward bundle at `destination`, replacing a bundle that is already there.

    Args:
        request: What to make it from.
        destination: The folder; it appears only when it is complete and checked.
        note: Called with each progress message.

    Raises:
        ExportError: The model cannot be exported, the graph disagrees with torch, or
            `destination` is not a reward bundle.
        InputError: `destination` is or holds what the bundle is made from.
        ModelFileError: `trained` is incomplete or does not fit `base`.
        RegistryError: The disk is full or read-only.
    """
    refuse_loss(destination, request.base, request.trained)
    note(f"reading {request.trained.name}")
    reward = load_trained(request.trained, request.base)
    weights = _checked_weights(request, reward.card.parts)
    with whole_folder(destination, REWARD_BUNDLE.name) as folder:
        note(f"writing the {request.precision} graph")
        _write_scorer(reward, request.precision, folder)
        reward.tokenizer.save(str(folder / TOKENIZER))
        model = RewardModel(
            graph=GRAPH,
            tokenizer=TOKENIZER,
            layout=reward.layout,
            pad=cast(int, reward.model.config.pad_token_id),
            parts=reward.card.parts,
            precision=request.precision,
        )
        note("comparing it with torch")
        parity = _check_parity(reward, OnnxScorer(folder, model, usable_cores()), request)
        has_adapter = (request.trained / ADAPTER).is_file()
        sidecar = RewardSidecar(
            format=REWARD_BUNDLE.version,
            model=model,
            weights=weights,
            parity=parity,
            provenance=RewardProvenance(
                base_model=reward.card.base, adapter=request.trained.name if has_adapter else None
            ),
            files=digests_of(folder),
            card=reward.card.metrics,
        )
        REWARD_BUNDLE.write(folder, sidecar)
    return REWARD_BUNDLE.open(destination)


def _checked_weights(request: RewardRequest, parts: Sequence[str]) -> dict[str, float]:
    given = request.part_weights
    if unknown := sorted(given.keys() - set(parts)):
        raise ExportError(
            f"{request.trained.name} has no part {unknown[0]}, only {', '.join(parts)}.",
            "Correct the weights.",
        )
    return {part: given.get(part, 1.0) for part in parts}


def parity_exchanges() -> list[Exchange]:
    """Exchanges cut from the parity text: each sentence with the one to five that follow it."""
    text = resources.files("alignpro_lite.pretrained").joinpath("parity_text.txt")
    pieces = re.split(r"(?<=[.!?])\s+|\n+", text.read_text(encoding="utf-8"))
    sentences = [piece for piece in pieces if len(piece) >= MIN_SENTENCE]
    return [
        Exchange(prompt, " ".join(sentences[place + 1 : place + 2 + place % ANSWER_SENTENCES]))
        for place, prompt in enumerate(sentences[:-1])
    ]


def compare_scores(
    expected: NDArray[np.float64], found: NDArray[np.float64]
) -> tuple[float, float]:
    """Correlation and pair agreement of scores, each of the worst part.

    Args:
        expected: Torch's scores, shape (n, parts).
        found: The graph's, same shape.

    Returns:
        Pearson's correlation, and the share of pairs of rows that both put in the same order; pairs
        that torch scores equally do not count. Both are 0 if all scores are equal.
    """
    correlations, agreements = [], []
    for wanted, got in zip(expected.T, found.T, strict=True):
        pairs = list(combinations(range(len(wanted)), 2))
        ours = np.array([np.sign(wanted[left] - wanted[right]) for left, right in pairs])
        theirs = np.array([np.sign(got[left] - got[right]) for left, right in pairs])
        decided = ours != 0
        flat = np.ptp(wanted) == 0 or np.ptp(got) == 0
        correlations.append(0.0 if flat else float(np.corrcoef(wanted, got)[0, 1]))
        agreements.append(0.0 if flat else float((ours == theirs)[decided].mean()))
    return min(correlations), min(agreements)


def _write_scorer(reward: TorchReward, precision: RewardPrecision, folder: Path) -> None:
    """Write model.onnx into `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".work-") as work:
        source, built = Path(work, "model"), Path(work, "graph")
        source.mkdir()
        built.mkdir()
        cast(Any, reward.model).save_pretrained(source)
        # optimum makes its example input with a tokenizer.
        wrapped = PreTrainedTokenizerFast(tokenizer_object=reward.tokenizer)
        wrapped.save_pretrained(source)
        graph = export_reference(source, built, "token-classification")
        if precision == "int8":
            quantise_graph(graph, folder / GRAPH, UNCHANGED, eight_bits)
        else:
            for path in built.glob(f"{GRAPH}*"):  # with its data file, if it has one
                shutil.move(path, folder / path.name)


def _check_parity(reward: TorchReward, scorer: OnnxScorer, request: RewardRequest) -> RewardParity:
    """Compare the graph with torch.

    Raises:
        ExportError: They disagree, and `allow_mismatch` is off.
    """
    exchanges = parity_exchanges()
    expected = reward.score(exchanges).double().numpy()
    found = scorer.score(exchanges)
    scorer.close()
    correlation, agreement = compare_scores(expected, found)
    least_correlation, least_agreement = REQUIRED[request.precision]
    passed = correlation >= least_correlation and agreement >= least_agreement
    parity = RewardParity(
        exchanges=len(exchanges),
        correlation=correlation,
        required_correlation=least_correlation,
        pair_agreement=agreement,
        required_agreement=least_agreement,
        max_error=float(np.abs(expected - found).max()),
        spread=float(expected.std(axis=0).min()),
        mismatch_allowed=not passed,
    )
    if not passed and not request.allow_mismatch:
        finer = "Use --precision fp32, or add" if request.precision == "int8" else "Add"
        raise ExportError(
            f"The {request.precision} graph disagrees with torch: {parity.summary()}.",
            f"{finer} --allow-mismatch to keep it.",
        )
    return parity
