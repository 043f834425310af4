"""What reward.toml may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from alignpro_lite.experiment.sections import Seed
from alignpro_lite.registry.record import Count, Label, Positive, Record, UnitInterval
from alignpro_lite.train.reward.preferences import PreferenceFormat


class RewardModelSection(Record):
    """[model]: what is trained.

    Attributes:
        base: Name of models.toml or a Hugging Face folder.
        method: `lora` trains an adapter and the head, `full` all weights.
        rank: Rank of the LoRA adapter.
        prompt_tokens: The most tokens read of a prompt; the end of a longer one is read.
        answer_tokens: The most tokens read of an answer; the beginning of a longer one is read.
    """

    base: str = "all-minilm-l6-v2"
    method: Literal["lora", "full"] = "lora"
    rank: Annotated[int, Meta(ge=1, le=256)] = 16
    prompt_tokens: Annotated[int, Meta(ge=8)] = 96
    answer_tokens: Annotated[int, Meta(ge=8)] = 192


class RewardTrainingSection(Record):
    """[training]: how it is trained.

    Attributes:
        epochs: How often every example is seen.
        batch: Examples in a step; a pair counts as one.
        learning_rate: Highest learning rate; it falls to zero.
        weight_decay: Weight decay of AdamW.
        held_out: Prompts whose hash falls into [from, to) are only measured; [0.25, 1] trains a
            second model on just the pairs that [0, 0.25] holds out.
        rating_weight: Weight of the squared error of ratings, relative to the loss of pairs.
        seed: Seed of the new weights and the order of the examples.
    """

    epochs: Positive = 2.0
    batch: Count = 16
    learning_rate: Annotated[float, Meta(gt=0, le=0.1)] = 3e-4
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    rating_weight: Annotated[float, Meta(ge=0)] = 0.3
    held_out: tuple[UnitInterval, UnitInterval] = (0.0, 0.25)
    seed: Seed = 0


class PreferenceSection(Record):
    """[[data]]: one file of preference pairs or ratings.

    Attributes:
        part: The named part of the reward it teaches.
        path: JSON, JSON lines, CSV or Parquet, plain or gzipped; relative to the data folder.
        format: The form it is published in; helpsteer and ratings hold scores, the others pairs.
    """

    part: Label
    path: str
    format: PreferenceFormat


class RewardConfig(Record, kw_only=True):
    """reward.toml: how a reward model is trained.

    Attributes:
        model: What is trained.
        training: How it is trained.
        data: The files; each names the part of the reward that it teaches.
    """

    model: RewardModelSection = RewardModelSection()
    training: RewardTrainingSection = RewardTrainingSection()
    data: Annotated[tuple[PreferenceSection, ...], Meta(min_length=1)]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of their first data."""
        return tuple(dict.fromkeys(data.part for data in self.data))
