"""What reward.toml may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from alignpro_lite.experiment.config import Section

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
Share = Annotated[float, Field(ge=0, le=1)]


class RewardModelSection(Section):
    """[model]: what is trained.

    Attributes:
        base: Name of models.toml or a Hugging Face folder.
        method: `lora` trains an adapter and the head, `full` all weights.
        rank: Of the LoRA adapter.
        prompt_tokens: Most tokens read of a prompt; its end counts.
        answer_tokens: Most tokens read of an answer; its beginning counts.
    """

    base: str = "all-minilm-l6-v2"
    method: Literal["lora", "full"] = "lora"
    rank: int = Field(16, ge=1, le=256)
    prompt_tokens: int = Field(96, ge=8)
    answer_tokens: int = Field(192, ge=8)


class RewardTrainingSection(Section):
    """[training]: how it is trained.

    Attributes:
        epochs: Times that every example is seen.
        batch: Examples of a step; a pair counts once.
        learning_rate: Its highest value; it falls to zero.
        weight_decay: Of AdamW.
        held_out: Prompts whose hash falls into [from, to) are only measured; [0.25, 1] trains a
            second model on just the pairs that [0, 0.25] holds out.
        rating_weight: Weight of the squared error of ratings beside the loss of pairs.
        seed: Of the new weights and the order of the examples.
    """

    epochs: float = Field(2.0, gt=0)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(3e-4, gt=0, le=0.1)
    weight_decay: float = Field(0.01, ge=0)
    rating_weight: float = Field(0.3, ge=0)
    held_out: tuple[Share, Share] = (0.0, 0.25)
    seed: int = Field(0, ge=0, lt=2**32)


class DataSection(Section):
    """[[data]]: one file of preference pairs or ratings.

    Attributes:
        part: The named part of the reward it teaches.
        path: JSON lines or a JSON array, plain or gzipped; relative to the data folder.
        format: The form it is published in; helpsteer and ratings hold scores, the others pairs.
    """

    part: Name
    path: str
    format: Literal["hh", "bpo", "ultrafeedback", "orca", "jsonl", "helpsteer", "ratings"]


class RewardConfig(Section):
    """reward.toml: how a reward model is trained.

    Attributes:
        model: What is trained.
        training: How it is trained.
        data: The files; each names the part of the reward that it teaches.
    """

    model: RewardModelSection = RewardModelSection()
    training: RewardTrainingSection = RewardTrainingSection()
    data: Annotated[tuple[DataSection, ...], Field(min_length=1)]

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the outputs, in the order of their first data."""
        return tuple(dict.fromkeys(data.part for data in self.data))
