"""What prompter.toml may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignpro_lite.experiment.config import Section
from alignpro_lite.experiment.sections import (
    AnswerSection,
    Count,
    GgufSection,
    Positive,
    PromptDataSection,
    RewardSection,
    TargetSection,
)


class LoraSection(Section):
    """What is trained of a base model.

    Attributes:
        max_tokens: Most tokens of what it writes, the stop token included.
        dtype: Of the frozen weights; the adapter is always float32.
        rank: Of the LoRA adapter.
        alpha: Its update is scaled by alpha / rank.
        modules: Linear layers that get an adapter, all-linear for all but the head.
    """

    max_tokens: int = Field(48, ge=2)
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    rank: int = Field(16, ge=1, le=256)
    alpha: Positive = 32.0
    modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class PrompterSection(LoraSection):
    """[prompter]: what is trained.

    Attributes:
        max_tokens: Most tokens of a rewrite, the stop token included.
        dtype: Of the frozen weights; the adapter is always float32.
        rank: Of the LoRA adapter.
        alpha: Its update is scaled by alpha / rank.
        modules: Linear layers that get an adapter, all-linear for all but the head.
        base: A prompter of models.toml, a Hugging Face folder or a GGUF file.
        mode: augment adds a hint to the prompt, rewrite replaces it.
        temperature: Of the rewrites that users get, and that the report measures; training always
            draws at 1. Below 1 a rewrite is likelier to be the one the prompter prefers.
    """

    base: str = "smollm2-135m-instruct"
    mode: Literal["augment", "rewrite"] = "augment"
    temperature: float = Field(1.0, gt=0, le=2)


class ObjectiveSection(Section):
    """[objective]: λ, and how rewrites are grouped and replayed.

    Attributes:
        strength: λ, the weight of the KL term, in units of the reward.
        prompts: Prompts of a step, over all processes.
        rewrites: K, rewrites of each prompt.
        replayed: Older groups of rewrites that each step learns from again.
        buffer: Groups that are kept for that.
    """

    strength: Positive
    prompts: Count = 4
    rewrites: int = Field(4, ge=2)
    replayed: int = Field(4, ge=0)
    buffer: Count = 256


class OptimisationSection(Section):
    """[training]: the optimiser and the limits of a run.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Its highest value.
        warmup: Steps until the learning rate is reached; it falls to a tenth from there on.
        clip: Largest norm of the gradient.
        checkpoint: Steps between two checkpoints.
        failures: Share of failed items in the last ten steps that stops the run.
        seed: Of the adapter, the order of the prompts, the rewrites and the answers.
    """

    steps: Count = 300
    learning_rate: Positive = 3e-4
    warmup: int = Field(10, ge=0)
    clip: Positive = 1.0
    checkpoint: Count = 20
    failures: float = Field(0.3, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=2**32)


class ReportSection(Section):
    """[report]: the measurement on held-out prompts after training.

    Attributes:
        prompts: How many, at most.
        answers: Answers to each prompt and kind of rewrite.
        best_of: Rewrites of the untrained prompter among which the best is taken.
    """

    prompts: int = Field(150, ge=2)
    answers: int = Field(4, ge=2)
    best_of: int = Field(8, ge=1)


class PrompterConfig(Section):
    """prompter.toml: how a prompter is trained against a frozen target.

    Attributes:
        prompter: What is trained.
        target: The frozen target, one of three kinds.
        answers: How the target is sampled.
        reward: What training raises, the weighted sum of all parts.
        second_reward: What only the report sees, best learned from other data.
        objective: λ, and how rewrites are grouped and replayed.
        training: The optimiser and the limits of a run.
        data: The prompts.
        report: The measurement on held-out prompts after training.
    """

    prompter: PrompterSection = PrompterSection()
    target: TargetSection = GgufSection()
    answers: AnswerSection = AnswerSection()
    reward: Annotated[tuple[RewardSection, ...], Field(min_length=1)]
    second_reward: tuple[RewardSection, ...] = ()
    objective: ObjectiveSection
    training: OptimisationSection = OptimisationSection()
    data: PromptDataSection
    report: ReportSection = ReportSection()

    @model_validator(mode="after")
    def _parts_are_unique(self) -> PrompterConfig:
        for rewards in (self.reward, self.second_reward):
            names = [name for section in rewards for name in section.weights]
            if len(set(names)) < len(names):
                raise ValueError(f"part names must be unique, found {', '.join(sorted(names))}")
        return self
