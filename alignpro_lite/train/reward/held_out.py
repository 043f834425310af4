"""What a reward model gets right on examples it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.measure.preference_pairs import (
    pair_accuracy,
    pair_calibration_error,
    pair_log_loss,
)
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.torch_reward import TorchReward
from alignpro_lite.train.reward_data import Example


def held_out_metrics(reward: TorchReward, examples: Sequence[Example]) -> dict[str, Any]:
    """Held-out figures of every file, of its pairs and of its ratings.

    Returns:
        By file: the part it measures, `pairs` (accuracy with its 95 % interval, that of always
        taking the longer answer, log-loss, calibration error) and `ratings` (correlation),
        each if there are any.
    """
    metrics: dict[str, Any] = {}
    for source in dict.fromkeys(example.source for example in examples):
        chosen = [example for example in examples if example.source == source]
        scores = _scores(reward, chosen)
        metrics[source] = {"part": reward.card.parts[chosen[0].part]} | _figures(chosen, scores)
    return metrics


def _scores(reward: TorchReward, examples: Sequence[Example]) -> list[NDArray[np.float64]]:
    """Scores of the answers of each example."""
    exchanges = [Exchange(one.prompt, answer) for one in examples for answer in one.answers]
    parts = [one.part for one in examples for _ in one.answers]
    scores = reward.score(exchanges).numpy().astype(np.float64)[np.arange(len(parts)), parts]
    ends = np.cumsum([len(one.answers) for one in examples])
    return np.split(scores, ends[:-1])


def _figures(examples: Sequence[Example], scores: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
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
    ratings = np.array([rating for one in examples for rating in one.ratings])
    known = ~np.isnan(ratings)
    if known.sum() > 2:
        correlation = float(np.corrcoef(np.concatenate(scores)[known], ratings[known])[0, 1])
        figures["ratings"] = {"count": int(known.sum()), "correlation": correlation}
    return figures


def _length_margin(pair: Example) -> float:
    return float(len(pair.answers[0]) - len(pair.answers[1]))
