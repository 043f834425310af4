"""How much longer an evaluation takes, judged by what each system has taken so far."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

_FORMAT = "{l_bar}{bar}| {n_fmt} of {total_fmt} prompts, {elapsed}{postfix}"


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


class Bar:
    """The progress bar of an evaluation."""

    def __init__(self, left: TimeLeft, total: int, done: int) -> None:
        self._left = left
        self._bar = tqdm(total=total, initial=done, unit="prompt", bar_format=_FORMAT)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, prompts: int, system: str) -> None:
        """Show that prompts are done."""
        seconds = self._left.seconds
        left = "timing the systems" if seconds is None else f"{duration(seconds)} left"
        self._bar.set_postfix_str(f"{left}, {system}", refresh=False)
        self._bar.update(prompts)


def duration(seconds: float) -> str:
    """A time for people to read, such as 3 min 20 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
