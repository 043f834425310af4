"""What oracle.toml may hold."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.sections import PromptDataSection, TwoOrMore
from alignpro_lite.registry.record import Count, Record
from alignpro_lite.reward.loading import ScorerSource
from alignpro_lite.target.rollout import AnswerPlan
from alignpro_lite.train.prompter.config import LoraSection, ObjectiveSection, OptimisationSection


class OracleSection(LoraSection):
    """[oracle]: what is trained.

    Attributes:
        base: The target to be aligned: one of models.toml, a Hugging Face folder or a GGUF file.
    """

    base: str = "smollm2-135m-instruct"


class StoppingSection(Record):
    """[stopping]: when training ends.

    Attributes:
        prompts: Training prompts that are set apart. At every checkpoint, the mean reward of
            answers.count answers to each of them is measured.
        patience: How many measurements in a row without a new best end the training. The weights
            of the best one are the result.
    """

    prompts: TwoOrMore = 48
    patience: Count = 4


class OracleConfig(Record, kw_only=True):
    """oracle.toml: how the target itself is aligned, to know what a prompter could reach.

    Attributes:
        oracle: What is trained.
        answers: How answers are drawn, in training and in its measurements: what eval.toml has in
            [answers], or the oracle is judged on answers that it was not trained for.
        reward: What training raises: the weighted sum of all parts.
        objective: λ, and how answers, which take the place of rewrites, are grouped and replayed.
        training: The optimiser and the limits of a run; training.steps is where it ends at the
            latest.
        stopping: When training ends.
        data: The prompts.
    """

    oracle: OracleSection = OracleSection()
    answers: AnswerPlan = AnswerPlan(count=2, max_tokens=64)
    reward: Annotated[tuple[ScorerSource, ...], Meta(min_length=1)]
    objective: ObjectiveSection
    training: OptimisationSection = OptimisationSection()
    stopping: StoppingSection = StoppingSection()
    data: PromptDataSection

    def __post_init__(self) -> None:
        """Refuse answers that cannot be learned from.

        Raises:
            InputError: Names the setting, or a reward that compares.
        """
        if self.answers.temperature == 0 or self.answers.max_tokens < 2:
            raise InputError(
                "answers must have a temperature above 0 and 2 tokens to be learned from, found "
                f"{self.answers.temperature:g} and {self.answers.max_tokens}.",
                "Set both in [answers] to what eval.toml has.",
            )
        if any(source.kind == "judge" for source in self.reward):
            raise InputError(
                "an oracle learns from a reward of single answers, found a judge, which compares "
                "them with answers of the target, and no target is loaded while one is trained.",
                "Give it a reward of kind onnx, huggingface or python.",
            )
