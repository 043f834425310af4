"""How often the judges of an evaluation are right about pairs of answers, beside mere length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignpro_lite.eval.summary import JudgeAccuracy
from alignpro_lite.measure.statistics import Estimate
from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.bundle import REWARD_BUNDLE
from alignpro_lite.reward.loading import ScorerSource


def judge_accuracies(
    judges: Mapping[str, Sequence[ScorerSource]], store: ModelStore
) -> tuple[JudgeAccuracy, ...]:
    """Look up the accuracy of every judge; each part has at least one row, but for checks.

    A check compares with the right answer, so there is nothing to know about it. Reward bundles
    carry what their training measured on held-out pairs. Of judges of another kind, and of parts
    that were never measured, nothing is known, and their row says so.

    Args:
        judges: What each judge is made of, by its name.
        store: Where models are.

    Raises:
        AlignProError: A reward bundle is missing or damaged.
    """
    return tuple(
        row
        for judge, sources in judges.items()
        for source in sources
        for row in _rows(judge, source, store)
    )


def _rows(judge: str, source: ScorerSource, store: ModelStore) -> Iterator[JudgeAccuracy]:
    if source.kind == "check":
        return
    weights, card = dict(source.weights), {}
    if source.kind == "onnx":
        sidecar = REWARD_BUNDLE.open(store.path("reward", source.source))
        weights, card = weights or dict(sidecar.weights), dict(sidecar.card)
    for part, weight in weights.items():
        if weight:
            yield from list(_measured(judge, part, weight, card)) or [
                JudgeAccuracy(judge, part, weight, None, 0, None, None)
            ]


def _measured(
    judge: str, part: str, weight: float, card: Mapping[str, Any]
) -> Iterator[JudgeAccuracy]:
    for data, figures in card.items():
        if figures["part"] == part and (pairs := figures.get("pairs")):
            accuracy = Estimate(pairs["accuracy"], *pairs["accuracy_95"])
            yield JudgeAccuracy(
                judge, part, weight, data, pairs["count"], accuracy, pairs["accuracy_of_length"]
            )
