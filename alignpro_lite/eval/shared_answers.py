"""Answers that several systems of an evaluation share, because they sent the same text."""

from __future__ import annotations

from collections.abc import Sequence

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.target.rollout import AnswerOrFailure, AnswerPlan, Target


class SharedAnswers:
    """A target that is asked once for what several systems send alike.

    All systems answer a prompt with the same seeds. So a prompter that leaves a prompt as it is
    gets the very answers of no prompter, and takes no time for them.
    """

    def __init__(self, target: Target) -> None:
        """Stand in front of a target; whoever opened it closes it."""
        self._target = target
        self._known: dict[
            tuple[tuple[Message, ...], AnswerPlan, int], Sequence[AnswerOrFailure]
        ] = {}

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seeds: Sequence[int]
    ) -> list[list[AnswerOrFailure]]:
        """Sample answers to what is new; see `Target.answers`."""
        keys = [(tuple(said), plan, seed) for said, seed in zip(conversations, seeds, strict=True)]
        new = [key for key in dict.fromkeys(keys) if key not in self._known]
        if new:
            asked, _, drawn = zip(*new, strict=True)
            self._known |= zip(new, self._target.answers(asked, plan, drawn), strict=True)
        return [list(self._known[key]) for key in keys]

    def close(self) -> None:
        """Nothing is held."""
