"""A conversation: what was asked, what the target got, what it said; kept in a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from alignpro_lite import Message, Result

TURNS_SENT = 8
"""How many earlier turns the target reads; a context is not endless."""


@dataclass
class Turn:
    """One question and its answer.

    Attributes:
        prompt: What the user wrote.
        sent: What the target got.
        reason: Why the two differ, or do not.
        changes: From the one to the other: ("kept" or "removed" or "added", text) in order.
        answer: What the target said.
    """

    prompt: str
    sent: str = ""
    reason: str = ""
    changes: Sequence[tuple[str, str]] = ()
    answer: str = ""

    @classmethod
    def of(cls, result: Result) -> Turn:
        """The turn of a finished answer."""
        choice = result.choice
        changes = [(change.kind, change.text) for change in choice.certificate.changes]
        return cls(choice.prompt, choice.sent, choice.reason, changes, result.answer)


class Conversation:
    """Turns, saved after each one."""

    def __init__(self, file: Path) -> None:
        """Restore what the file holds; a file that cannot be read is kept beside the new one."""
        self._file = file
        self.turns: list[Turn] = []
        if file.exists():
            try:
                self.turns = [Turn(**turn) for turn in json.loads(file.read_text("utf-8"))]
            except (ValueError, TypeError):
                file.replace(file.with_suffix(".unreadable"))

    def history(self) -> tuple[Message, ...]:
        """What the target reads before the next prompt."""
        return tuple(
            message
            for turn in self.turns[-TURNS_SENT:]
            for message in (Message("user", turn.sent), Message("assistant", turn.answer))
        )

    def add(self, turn: Turn) -> None:
        """Append a turn and save."""
        self.turns.append(turn)
        self._save()

    def clear(self) -> None:
        """Begin anew."""
        self.turns.clear()
        self._save()

    def _save(self) -> None:
        """Write all turns to a new file and put it in place: a crash loses one turn at most."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(turn) for turn in self.turns], indent=1), "utf-8")
        fresh.replace(self._file)
