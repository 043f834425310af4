"""The examples a reward model learns from, split by prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.prompts import prompt_position
from alignpro_lite.train.reward.config import PreferenceSection
from alignpro_lite.train.reward.preferences import Preference, read_preferences


@dataclass(frozen=True)
class Example:
    """A pair or a rated answer, and the output that it teaches.

    Attributes:
        part: Index of the output.
        source: Name of the file, for the held-out figures.
        prompt: x.
        answers: One rated answer, or two answers with the better one first.
        ratings: Rating of each answer, in standard deviations from the mean of its file; NaN
            where the file has none.
    """

    part: int
    source: str
    prompt: str
    answers: tuple[str, ...]
    ratings: tuple[float, ...]


@dataclass(frozen=True)
class RewardData:
    """All examples of a run.

    Attributes:
        train: What is learned from.
        held_out: What is only measured; none of its prompts occur in `train`.
        left_out: A sentence for every row that could not be read.
    """

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    left_out: tuple[str, ...]


def read_data(
    sections: Sequence[PreferenceSection],
    parts: Sequence[str],
    folder: Path,
    held_out: tuple[float, float],
) -> RewardData:
    """Read and split every file.

    Args:
        sections: The files.
        parts: Names of the outputs.
        folder: What relative paths start from.
        held_out: Range [from, to) of `prompt_position` that is kept from training.

    Raises:
        InputError: A file is unreadable, or nothing is left to train on or to measure.
    """
    train: list[Example] = []
    held: list[Example] = []
    left_out: list[str] = []
    for section in sections:
        path = folder / section.path
        rows, bad = read_preferences(path, section.format)
        left_out += [f"{section.path}: {row}" for row in bad]
        for example in _examples(rows, parts.index(section.part), path.name):
            is_held = held_out[0] <= prompt_position(example.prompt) < held_out[1]
            (held if is_held else train).append(example)
    if not train or not held:
        raise InputError(
            f"Training needs examples to learn from and to measure, found {len(train)} and "
            f"{len(held)}.",
            "Add data, or change training.held_out.",
        )
    return RewardData(tuple(train), tuple(held), tuple(left_out))


def _examples(rows: Sequence[Preference], part: int, source: str) -> list[Example]:
    known = np.array([score for row in rows for score in row.scores])
    mean, deviation = (known.mean(), known.std() or 1.0) if known.size else (0.0, 1.0)
    examples = []
    for row in rows:
        standard = tuple((score - mean) / deviation for score in row.scores)
        ratings = standard or (math.nan,) * len(row.answers)
        examples.append(Example(part, source, row.prompt, row.answers, ratings))
    return examples
