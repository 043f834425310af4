"""How often a reward model is right on examples that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignpro_lite.measure.preference_pairs import (
    pair_accuracy,
    pair_calibration_error,
    pair_log_loss,
)
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.torch_reward import TorchReward
from alignpro_lite.train.reward.data import Example


def held_out_metrics(reward: TorchReward, examples: Sequence[Example]) -> dict[str, Any]:
    """Measure a reward model on the pairs and the ratings of every file.

    Returns:
        By file: the part it measures, `pairs` (accuracy with its 95 % interval, accuracy of always
        taking the longer answer, log-loss, calibration error) and `ratings` (correlation), each
        if the file has any.
    """
    metrics: dict[str, Any] = {}
    for source in dict.fromkeys(example.source for example in examples):
        chosen = [example for example in examples if example.source == source]
        scores = _scores(reward, chosen)
        metrics[source] = {"part": reward.card.parts[chosen[0].part]} | _figures(chosen, scores)
    return metrics


def _scores(reward: TorchReward, examples: Sequence[Example]) -> list[FloatArray]:
    """Scores of the answers of each example."""
    exchanges = [
        Exchange(example.prompt, answer) for example in examples for answer in example.answers
    ]
    parts = [example.part for example in examples for _ in example.answers]
    scores = reward.score(exchanges).numpy().astype(np.float64)[np.arange(len(parts)), parts]
    ends = np.cumsum([len(example.answers) for example in examples])
    return np.split(scores, ends[:-1])


def _figures(examples: Sequence[Example], scores: Sequence[FloatArray]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    pairs = [row for row, example in enumerate(examples) if len(example.answers) > 1]
    if pairs:
        margins = np.array([scores[row][0] - scores[row][1] for row in pairs])
        lengths = np.array([_length_margin(examples[row]) for row in pairs])
        accuracy = pair_accuracy(margins)
        figures["pairs"] = {
            "count": len(pairs),
            "accuracy": accuracy.value,
            "accuracy_95": [accuracy.low, accuracy.high],
            "accuracy_of_length": pair_accuracy(lengths).value,
            "log_loss": pair_log_loss(margins),
            "calibration_error": pair_calibration_error(margins),
        }
    ratings = np.array([rating for example in examples for rating in example.ratings])
    known = ~np.isnan(ratings)
    if known.sum() > 2:
        correlation = float(np.corrcoef(np.concatenate(scores)[known], ratings[known])[0, 1])
        figures["ratings"] = {"count": int(known.sum()), "correlation": correlation}
    return figures


def _length_margin(pair: Example) -> float:
    return float(len(pair.answers[0]) - len(pair.answers[1]))
