"""The card of an oracle: how it was trained, to be compared with how it is judged."""

from __future__ import annotations

from pathlib import Path

from alignpro_lite.errors import ModelFileError
from alignpro_lite.registry.record import Count, Origin, Record, parse_written, read_json
from alignpro_lite.target.rollout import AnswerPlan

ORACLE_CARD = "oracle_card.json"
"""Beside the GGUF file."""


class OracleCard(Record):
    """How an oracle was trained.

    Attributes:
        answers: How its answers were drawn in training.
        strength: λ.
        steps: Steps of the run.
        best_step: The step whose weights it has; 0 if training gained nothing.
        prompts: How many prompts, which were neither trained on nor held out for the evaluation,
            decided when to stop.
        first_reward: Mean reward on them before training.
        best_reward: The same at the best step.
        is_plateau: Whether training ended because the reward had stopped rising, rather than at its
            last step.
    """

    answers: AnswerPlan
    strength: float
    steps: Count
    best_step: int
    prompts: Count
    first_reward: float
    best_reward: float
    is_plateau: bool

    def summary(self) -> str:
        """How the training went, in one sentence."""
        end = (
            "until the reward had stopped rising"
            if self.is_plateau
            else "up to its last step, when the reward may still have been rising"
        )
        return (
            f"trained for {self.steps} steps, {end}: from {self.first_reward:.3f} to "
            f"{self.best_reward:.3f} at step {self.best_step}, on {self.prompts} prompts set apart"
        )


def read_oracle_card(gguf: Path) -> OracleCard | None:
    """Read the card beside an oracle; None if there is none.

    Raises:
        ModelFileError: It is damaged.
    """
    file = gguf.with_name(ORACLE_CARD)
    if not file.exists():
        return None
    origin = Origin(file, ModelFileError, "Restore the file, or train the oracle again.")
    return parse_written(OracleCard, read_json(origin, "trained oracle"), origin)


def oracle_note(name: str, card: OracleCard | None, plan: AnswerPlan) -> str:
    """What a reader of an evaluation has to know about its oracle.

    Args:
        name: What the report calls it.
        card: How it was trained; None where that is not known.
        plan: How its answers are drawn here.
    """
    if card is None:
        return f"How {name} was trained is not known: there is no {ORACLE_CARD} beside it."
    different = [
        f"{key} {getattr(card.answers, key)} in training, {getattr(plan, key)} here"
        for key in ("max_tokens", "temperature", "top_k", "top_p", "min_p")
        if getattr(card.answers, key) != getattr(plan, key)
    ]
    mismatch = (
        f". Its answers were drawn otherwise than they are judged: {'; '.join(different)}"
        if different
        else ", on answers drawn as they are judged"
    )
    return f"{name} was {card.summary()}{mismatch}."
