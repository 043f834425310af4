"""What prompter.toml may hold."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, structs

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.sections import (
    GgufSection,
    PromptDataSection,
    Seed,
    TargetSection,
    TwoOrMore,
)
from alignpro_lite.prompter.profile import DOUBT
from alignpro_lite.registry.entries import RewriteMode
from alignpro_lite.registry.record import Count, Positive, Record, UnitInterval
from alignpro_lite.reward.loading import ScorerSource
from alignpro_lite.target.rollout import AnswerPlan


class LoraSection(Record):
    """What is trained of a base model.

    Attributes:
        dtype: Type of the frozen weights; the adapter is always float32. auto is bfloat16 where the
            device computes in it, and float32 elsewhere: a CPU with AVX2 alone multiplies seven
            times slower in bfloat16.
        rank: Rank of the LoRA adapter.
        alpha: The update of the adapter is scaled by alpha / rank.
        modules: Linear layers that get an adapter; all-linear means all but the head.
    """

    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    rank: Annotated[int, Meta(ge=1, le=256)] = 16
    alpha: Positive = 32.0
    modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class AskedSection(LoraSection):
    """[prompter]: what is trained, and how it is asked.

    Attributes:
        max_tokens: The most tokens of a rewrite, the stop token included.
        base: A prompter of models.toml, a Hugging Face folder or a GGUF file.
        mode: augment adds a hint to the prompt, rewrite replaces it.
        template: The adapter whose words it is asked in, by its name in the package or as
            `file:path`: training goes on from what its template makes the base do. None asks in
            the neutral words of the mode.
        temperature: Temperature of the rewrites that users get and the report measures, of the
            trained prompter and of the untrained one; training always draws at 1. Below 1, the
            rewrites that the prompter prefers are likelier.
        doubt: The probability of the empty hint from which the prompter adds nothing for users.
    """

    max_tokens: TwoOrMore = 48
    base: str = "smollm2-135m-instruct"
    mode: RewriteMode = "augment"
    template: str | None = None
    temperature: Annotated[float, Meta(gt=0, le=2)] = 1.0
    doubt: UnitInterval = DOUBT


class PrompterSection(AskedSection):
    """[prompter]: what is trained, from where, and how it is asked.

    Attributes:
        reference: The adapter that makes ρ_sft of the base, as `train reference` writes it, by its
            name in the package or as `file:path`. Training goes on from there, in the words of its
            card. None: ρ_sft is the base.
    """

    reference: str | None = None

    def __post_init__(self) -> None:
        """Refuse words beside those of the reference.

        Raises:
            InputError: Both are given.
        """
        if self.reference is not None and self.template is not None:
            raise InputError(
                "A prompter is asked in the words of its reference, found a template too: "
                f"{self.template!r:.80}.",
                "Remove prompter.template.",
            )


class ObjectiveSection(Record):
    """[objective]: λ, and how rewrites are grouped and replayed.

    Attributes:
        strength: λ, the weight of the KL term, in units of the reward.
        prompts: Prompts in a step, over all processes.
        rewrites: K, rewrites of each prompt.
        replayed: Older groups of rewrites that each step learns from again.
        buffer: Groups kept for that.
    """

    strength: Positive
    prompts: Count = 4
    rewrites: TwoOrMore = 4
    replayed: Annotated[int, Meta(ge=0)] = 4
    buffer: Count = 256


class OptimisationSection(Record):
    """[training]: the optimiser and the limits of a run.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Highest learning rate.
        warmup: Steps until the learning rate is reached; it then falls to a tenth.
        clip: Largest norm of the gradient; a larger one is scaled down.
        checkpoint: Steps between two checkpoints.
        failures: Share of failed items in the last ten steps that stops the run.
        seed: Seed of the adapter, the order of the prompts, the rewrites and the answers.
    """

    steps: Count = 300
    learning_rate: Positive = 3e-4
    warmup: Annotated[int, Meta(ge=0)] = 10
    clip: Positive = 1.0
    checkpoint: Count = 20
    failures: Annotated[float, Meta(gt=0, le=1)] = 0.3
    seed: Seed = 0


class ScalingSection(Record):
    """[scaling]: what each part of the reward is divided by.

    Attributes:
        by: spread, the part's deviation over the answers to one raw prompt, measured when the run
            starts; or nothing, which leaves each part in its own unit.
        prompts: Training prompts that it is measured on.
        answers: Answers to each of them.
    """

    by: Literal["spread", "nothing"] = "spread"
    prompts: Count = 32
    answers: TwoOrMore = 4


class ReportSection(Record):
    """[report]: the measurement on held-out prompts after training.

    Attributes:
        prompts: The most prompts that are measured.
        answers: Answers to each prompt and kind of rewrite.
        best_of: Rewrites of the untrained prompter among which the best is taken.
    """

    prompts: TwoOrMore = 150
    answers: TwoOrMore = 4
    best_of: Count = 8


class PrompterConfig(Record, kw_only=True):
    """prompter.toml: how a prompter is trained against a frozen target.

    Attributes:
        prompter: What is trained.
        target: The frozen target, one of three kinds. The report measures with it.
        pool: Further targets to train against: each prompt of a step is answered by the next one in
            turn, so that what is learned is about prompts and not about one model.
        answers: How the target is sampled.
        reward: What training raises: the weighted sum of all parts.
        second_reward: A reward that only the report uses, best trained on other data.
        scaling: What each part of reward is divided by. Left out, nothing for a single [[reward]],
            and for several their spreads.
        objective: λ, and how rewrites are grouped and replayed.
        training: The optimiser and the limits of a run.
        data: The prompts.
        report: The measurement on held-out prompts after training.
    """

    prompter: PrompterSection = PrompterSection()
    target: TargetSection = GgufSection()
    pool: tuple[TargetSection, ...] = ()
    answers: AnswerPlan = AnswerPlan()
    reward: Annotated[tuple[ScorerSource, ...], Meta(min_length=1)]
    second_reward: tuple[ScorerSource, ...] = ()
    scaling: ScalingSection | None = None
    objective: ObjectiveSection
    training: OptimisationSection = OptimisationSection()
    data: PromptDataSection
    report: ReportSection = ReportSection()

    @property
    def targets(self) -> tuple[TargetSection, ...]:
        """All that is trained against, `target` first."""
        return (self.target, *self.pool)

    def __post_init__(self) -> None:
        """Refuse a part that two scorers have; scale several rewards unless told otherwise.

        Raises:
            InputError: Names the parts.
        """
        if self.scaling is None and len(self.reward) > 1:
            structs.force_setattr(self, "scaling", ScalingSection())
        for rewards in (self.reward, self.second_reward):
            names = [name for section in rewards for name in section.weights]
            if len(set(names)) < len(names):
                raise InputError(
                    f"part names must be unique, found {', '.join(sorted(names))}.",
                    "Rename one in weights.",
                )
