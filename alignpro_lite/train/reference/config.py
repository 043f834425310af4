"""What reference.toml may hold."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.sections import Seed
from alignpro_lite.registry.record import Count, NonEmpty, Positive, Record
from alignpro_lite.train.prompter.config import AskedSection


class SupervisionSection(Record):
    """[training]: the optimiser and the limits of a run.

    Attributes:
        epochs: How often every pair is seen.
        batch: Pairs in a step.
        learning_rate: Highest learning rate.
        warmup: Steps until the learning rate is reached; it then falls to a tenth.
        decision: Weight of a hint's first token. It decides whether there is text at all, and would
            be one token among twenty; every conditional probability keeps its optimum.
        clip: Largest norm of the gradient; a larger one is scaled down.
        checkpoint: Steps between two checkpoints, each with a measurement of the held-out pairs;
            the weights of the best one are the result.
        seed: Seed of the adapter and the order of the pairs.
    """

    epochs: Count = 3
    batch: Count = 16
    learning_rate: Positive = 5e-4
    warmup: Annotated[int, Meta(ge=0)] = 10
    decision: Positive = 8.0
    clip: Positive = 1.0
    checkpoint: Count = 30
    seed: Seed = 0


class HintDataSection(Record):
    """[data]: the pairs.

    Attributes:
        folder: Holds a file of JSON lines for each kind of prompt, see docs/training.md; relative
            to the data folder.
        held_out: Share of pairs, by the hash of their prompt, that training never sees.
    """

    folder: str
    held_out: Annotated[float, Meta(gt=0, lt=1)] = 0.15


class ReferenceConfig(Record, kw_only=True):
    """reference.toml: how a base model is taught to write hints, before any reward.

    Attributes:
        prompter: What is trained, and how it is asked.
        training: The optimiser and the limits of a run.
        data: The pairs of a prompt and its hint.
        targets: Names or GGUF files of the targets that such hints were measured with. The card
            says so, and the prompter is chosen for them.
    """

    prompter: AskedSection = AskedSection()
    training: SupervisionSection = SupervisionSection()
    data: HintDataSection
    targets: tuple[NonEmpty, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a mode that hints do not teach.

        Raises:
            InputError: The mode is not augment.
        """
        if self.prompter.mode != "augment":
            raise InputError(
                f"prompter.mode must be augment, found {self.prompter.mode}: the pairs hold hints.",
                "Correct it.",
            )
