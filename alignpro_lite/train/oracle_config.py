"""What oracle.toml may hold."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alignpro_lite.experiment.config import Section
from alignpro_lite.experiment.sections import PromptDataSection, RewardSection
from alignpro_lite.train.prompter_config import LoraSection, ObjectiveSection, OptimisationSection


class OracleSection(LoraSection):
    """[oracle]: what is trained.

    Attributes:
        max_tokens: Most tokens of an answer, the stop token included.
        dtype: Of the frozen weights; the adapter is always float32.
        rank: Of the LoRA adapter.
        alpha: Its update is scaled by alpha / rank.
        modules: Linear layers that get an adapter, all-linear for all but the head.
        base: The target to be aligned: one of models.toml, a Hugging Face folder or a GGUF file.
    """

    max_tokens: int = Field(80, ge=2)
    base: str = "smollm2-135m-instruct"


class OracleConfig(Section):
    """oracle.toml: how the target itself is aligned, to know what a prompter could reach.

    Attributes:
        oracle: What is trained.
        reward: What training raises, the weighted sum of all parts.
        objective: λ, and how answers, in the place of rewrites, are grouped and replayed.
        training: The optimiser and the limits of a run.
        data: The prompts.
    """

    oracle: OracleSection = OracleSection()
    reward: Annotated[tuple[RewardSection, ...], Field(min_length=1)]
    objective: ObjectiveSection
    training: OptimisationSection = OptimisationSection()
    data: PromptDataSection
