"""The records of an evaluation as statistics need them: by system, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        """The prompts of a data set that all of some systems have answered, with scores."""
        return [
            place
            for place in self.rows[systems[0]]
            if data in (place[0], ALL) and all(self._is_scored(name, place) for name in systems)
        ]

    def _is_scored(self, system: str, place: PromptPlace) -> bool:
        """Whether every judge has scored an answer of a system to a prompt, or more of them."""
        row = self.rows[system].get(place)
        judges = self.lineup.judges
        return row is not None and not any(_is_unscored(row.rewards[name]) for name in judges)

    def rewards(self, system: str, places: Sequence[PromptPlace], judge: str) -> FloatArray:
        """Scores of a system's answers to prompts of `places`, shape (prompts, answers).

        An answer without a score has the mean of the others to its prompt.
        """
        rows = [self.rows[system][place].rewards[judge] for place in places]
        return filled(np.array(rows, np.float64))

    def words(self, system: str, places: Sequence[PromptPlace]) -> FloatArray:
        """Lengths of a system's answers in words, shape (prompts, answers)."""
        rows = [self.rows[system][place].answers for place in places]
        return np.array([[len(answer.split()) for answer in row] for row in rows], np.float64)

    def unscored_notes(self) -> Iterator[str]:
        """A sentence for every judge and system of which it has not scored every answer."""
        for judge in self.lineup.judges:
            for system, rows in self.rows.items():
                scores = [row.rewards[judge] for row in rows.values()]
                missing = sum(score is None for row in scores for score in row)
                if missing:
                    yield (
                        f"{judge} has no score for {missing} of {sum(map(len, scores))} answers of "
                        f"{system}: each counts as the mean of the others to its prompt, and "
                        "prompts without any score are left out, here "
                        f"{sum(map(_is_unscored, scores))}."
                    )


def filled(rewards: FloatArray) -> FloatArray:
    """Rewards of shape (prompts, answers), each NaN replaced by the mean of the others in its row.

    So an answer that could not be scored costs itself, and leaves the mean of its prompt alone.
    """
    means = np.nanmean(rewards, axis=1, keepdims=True)
    found: FloatArray = np.where(np.isnan(rewards), means, rewards)
    return found


def _is_unscored(scores: Sequence[float | None]) -> bool:
    return all(score is None for score in scores)
