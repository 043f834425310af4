"""The records of an evaluation as statistics need them: by system, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alignpro_lite.eval.lineup import ALL, Lineup
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.measure.statistics import FloatArray

PromptPlace = tuple[str, int]
"""A prompt: its data set and its place there."""


@dataclass(frozen=True)
class Answers:
    """The records of an evaluation, by system and prompt.

    Attributes:
        lineup: What was compared.
        rows: Records by system, and by prompt in the order of the data.
    """

    lineup: Lineup
    rows: Mapping[str, Mapping[PromptPlace, ResultRow]]

    @classmethod
    def of(cls, lineup: Lineup, records: Sequence[ResultRow]) -> Answers:
        """Sort records by system and prompt."""
        order = {name: place for place, name in enumerate(lineup.prompts)}
        rows: dict[str, dict[PromptPlace, ResultRow]] = {name: {} for name in lineup.systems}
        for record in sorted(records, key=lambda record: (order[record.data], record.number)):
            rows[record.system][record.data, record.number] = record
        return cls(lineup, {name: found for name, found in rows.items() if found})

    def is_partial(self, data: str, system: str) -> bool:
        """Whether a system answers only some of the data sets that ALL stands for."""
        return data == ALL and not self.lineup.answers_everything(system)

    def places(self, data: str, *systems: str) -> list[PromptPlace]:
        """The prompts of a data set that all of some systems have answered."""
        first, *others = (self.rows[name] for name in systems)
        return [
            place
            for place in first
            if data in (place[0], ALL) and all(place in rows for rows in others)
        ]

    def rewards(self, system: str, places: Sequence[PromptPlace], judge: str) -> FloatArray:
        """Scores of a system's answers, shape (prompts, answers)."""
        return np.array([self.rows[system][place].rewards[judge] for place in places])

    def words(self, system: str, places: Sequence[PromptPlace]) -> FloatArray:
        """Lengths of a system's answers in words, shape (prompts, answers)."""
        rows = [self.rows[system][place].answers for place in places]
        return np.array([[len(answer.split()) for answer in row] for row in rows], np.float64)
