"""The lineup of an evaluation: which systems answer which prompts, and who judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alignpro_lite.measure.kinds import kind_of_prompt

ALL = "all"
"""The data set that stands for all of them together, where there are several."""


@dataclass(frozen=True)
class Lineup:
    """What is compared on what, by name.

    Attributes:
        prompts: The prompts of each data set, without duplicates.
        systems: The data sets that each system answers.
        judges: Names of the rewards; the first is the one that was optimised.
        baseline: The system that the others are compared with; it answers all data sets.
        oracle: The system whose gain the others are measured by, or None.
        seed: Seed of rewrites, answers and resampling, the same for all systems.
        controls: Systems that need neither training nor a search, such as ρ_sft and a constant
            hint: the others are worth what they gain beyond these.
        calls: How often the target is asked for one answer, of systems that try several rewrites or
            answers and let the reward choose; a system that is not named asks once. The best of n
            answers to the unchanged prompt is not named: it is what the others are compared with.
        constant: The system that gives all prompts the best constant hint, or None.
        kinds: Kinds of prompts that their data set names; rules decide about the others.
    """

    prompts: Mapping[str, Sequence[str]]
    systems: Mapping[str, Sequence[str]]
    judges: tuple[str, ...]
    baseline: str
    oracle: str | None
    seed: int
    controls: tuple[str, ...] = ()
    calls: Mapping[str, int] = field(default_factory=dict)
    constant: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def data(self) -> tuple[str, ...]:
        """Names of the data sets, ALL last where there are several."""
        names = tuple(self.prompts)
        return (*names, ALL) if len(names) > 1 else names

    def answers_everything(self, system: str) -> bool:
        """Whether a system answers every data set."""
        return set(self.systems[system]) == set(self.prompts)

    def kind(self, prompt: str) -> str:
        """The kind of a prompt, as its data set names it or `kind_of_prompt` finds it."""
        return self.kinds.get(prompt) or kind_of_prompt(prompt)

    def searching(self, data: str) -> list[str]:
        """The systems that call the target several times for an answer to a data set."""
        return [name for name in self.calls if data in self.systems[name]]
