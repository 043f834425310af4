"""What oracle.toml may hold."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from alignpro_lite.experiment.sections import PromptDataSection, TwoOrMore
from alignpro_lite.registry.record import Record
from alignpro_lite.reward.loading import ScorerSource
from alignpro_lite.train.prompter.config import LoraSection, ObjectiveSection, OptimisationSection


class OracleSection(LoraSection):
    """[oracle]: what is trained.

    Attributes:
        max_tokens: The most tokens of an answer, the stop token included.
        base: The target to be aligned: one of models.toml, a Hugging Face folder or a GGUF file.
    """

    max_tokens: TwoOrMore = 80
    base: str = "smollm2-135m-instruct"


class OracleConfig(Record, kw_only=True):
    """oracle.toml: how the target itself is aligned, to know what a prompter could reach.

    Attributes:
        oracle: What is trained.
        reward: What training raises: the weighted sum of all parts.
        objective: λ, and how answers, which take the place of rewrites, are grouped and replayed.
        training: The optimiser and the limits of a run.
        data: The prompts.
    """

    oracle: OracleSection = OracleSection()
    reward: Annotated[tuple[ScorerSource, ...], Meta(min_length=1)]
    objective: ObjectiveSection
    training: OptimisationSection = OptimisationSection()
    data: PromptDataSection
