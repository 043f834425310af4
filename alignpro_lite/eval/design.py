"""What `eval headroom` tries on each prompt, and on how many prompts, for what it may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignpro_lite.eval.config import HeadroomSection
from alignpro_lite.measure.headroom import FEWEST_PROMPTS
from alignpro_lite.registry.record import Record

MORE = 2
"""How often the prompt itself is answered again, in answers to a rewrite: every gain is over it."""
_WANTED_PROMPTS = 24
"""Prompts that a design should leave room for: intervals of fewer are wide."""
_TINY = 1e-9


class HeadroomDesign(Record):
    """What is tried on each prompt.

    Attributes:
        hints: Constant hints.
        rewrites: Rewrites of each source.
        answers: Answers to each of them, and to the prompt itself.
    """

    hints: tuple[str, ...]
    rewrites: int
    answers: int

    def calls(self, sources: int) -> int:
        """Most answers to a prompt, which it takes if no two rewrites are the same."""
        return (1 + len(self.hints) + sources * self.rewrites + MORE) * self.answers


_SIZES = ((8, 4, 4), (6, 3, 4), (6, 3, 2))
"""Hints, rewrites and answers, from the most to the least that is tried on a prompt."""
_SMALLEST = (3, 2, 2)


def plan_design(
    calls: float, sources: int, section: HeadroomSection, hints: Sequence[str]
) -> HeadroomDesign:
    """The most that can be tried on each of enough prompts.

    Args:
        calls: Answers of the target that the budget allows.
        sources: How many prompters write.
        section: What of the design is fixed.
        hints: All constant hints; those that are tried are spread evenly over them.
    """

    def design(size: tuple[int, int, int]) -> HeadroomDesign:
        count = min(section.hints or size[0], len(hints))
        return HeadroomDesign(
            tuple(hints[place * len(hints) // count] for place in range(count)),
            section.rewrites or size[1],
            section.answers or size[2],
        )

    fitting = (
        found for found in map(design, _SIZES) if calls >= _WANTED_PROMPTS * found.calls(sources)
    )
    return next(fitting, design(_SMALLEST))


@dataclass(frozen=True)
class HeadroomBudget:
    """What a run may cost, earlier parts of it included. At least one limit is set.

    Attributes:
        seconds: Time for rewrites, answers and scores; None for any.
        calls: Answers of the target; None for any number.
    """

    seconds: float | None
    calls: int | None

    def prompts(self, done: int, seconds: float, calls: int, most: int) -> int:
        """How many prompts can be tried in all, at the cost so far; at least `FEWEST_PROMPTS`.

        Args:
            done: Prompts that were tried, at least one.
            seconds: What they took.
            calls: What they took.
            most: What another one may take; calls are never more than allowed.
        """
        limits = []
        if self.seconds is not None:
            limits.append(int(done * self.seconds / max(seconds, _TINY)))
        if self.calls is not None:
            left = self.calls - calls
            limits.append(done + (max(1, left * done // max(calls, 1)) if left >= most else 0))
        return max(FEWEST_PROMPTS, min(limits))

    def calls_at(self, seconds_a_call: float) -> float:
        """How many answers can be had at that pace."""
        limits = [] if self.calls is None else [float(self.calls)]
        if self.seconds is not None:
            limits.append(self.seconds / max(seconds_a_call, _TINY))
        return min(limits)
