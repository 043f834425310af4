"""Early stopping: training ends once the reward on prompts set apart has stopped rising."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """The reward on the prompts set apart, at one step.

    Attributes:
        step: Steps done.
        reward: Mean reward.
    """

    step: int
    reward: float


@dataclass(frozen=True)
class Watch:
    """What decides when a run ends.

    Attributes:
        prompts: Prompts that are not trained on.
        answers: How many outputs are drawn for each.
        patience: See `Plateau`.
    """

    prompts: tuple[str, ...]
    answers: int
    patience: int


@dataclass(frozen=True)
class Plateau:
    """All measurements of a run so far.

    Attributes:
        patience: How many measurements in a row without a new best end the training.
        history: In their order, the first one before training.
    """

    patience: int
    history: tuple[Measurement, ...] = ()

    @property
    def best(self) -> Measurement | None:
        """The measurement with the highest reward, the first of equal ones; None before any."""
        return max(self.history, key=lambda found: found.reward, default=None)

    @property
    def is_reached(self) -> bool:
        """Whether the last `patience` measurements brought no new best."""
        return self.best is not None and (
            len(self.history) - 1 - self.history.index(self.best) >= self.patience
        )

    def after(self, measured: Measurement) -> Plateau:
        """The same with one more measurement."""
        return Plateau(self.patience, (*self.history, measured))
