"""How much longer an evaluation takes, judged by what each system has taken so far."""

from __future__ import annotations

from collections.abc import Mapping


class TimeLeft:
    """Estimates the time left from the pace of each system, because their costs differ."""

    def __init__(self, planned: Mapping[str, int]) -> None:
        """Begin with nothing done.

        Args:
            planned: Prompts of each system.
        """
        self._planned = planned
        self._seconds = dict.fromkeys(planned, 0.0)
        self._done = dict.fromkeys(planned, 0)

    def add(self, system: str, prompts: int, seconds: float) -> None:
        """Count finished prompts, in this run or an earlier one, and the time that they took."""
        self._done[system] += prompts
        self._seconds[system] += seconds

    @property
    def seconds(self) -> float | None:
        """The estimate; None until half of the systems have been timed.

        A system that has not started yet is assumed to have the mean pace of the others.
        """
        paces = {name: self._seconds[name] / done for name, done in self._done.items() if done}
        if 2 * len(paces) < len(self._planned):
            return None
        usual = sum(paces.values()) / len(paces)
        return sum(
            (planned - self._done[system]) * paces.get(system, usual)
            for system, planned in self._planned.items()
        )


def duration(seconds: float) -> str:
    """A time for people to read, such as 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
