"""Token bytes to readable text: whole characters only, stop strings held back."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence


class StopStrings:
    """Passes text on until the first stop string, holding back what may be the start of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def feed(self, text: str) -> str:
        """Add text; returns what can be shown now, which is nothing after a stop string."""
        if self.found:
            return ""
        self._held += text
        shown, self.found, self._held = cut_at(self._held, self._stops)
        if self.found:
            self._held = ""
        return shown

    @property
    def held_size(self) -> int:
        """Bytes that are held back."""
        return len(self._held.encode())

    def end(self) -> str:
        """The text that was held back but is not a stop string."""
        shown, self._held = self._held, ""
        return shown


def cut_at(text: str, marks: Sequence[str]) -> tuple[str, bool, str]:
    """Cut a text, of which more may come, at the first of several marks.

    Returns:
        What stands before the mark, whether there is one, and what follows it; without a mark, the
        rest is what may be its beginning.
    """
    found = [(place, mark) for mark in marks if (place := text.find(mark)) >= 0]
    if found:
        # The one that is complete first, so that the cut does not depend on the pieces.
        place, mark = min(found, key=lambda match: (match[0] + len(match[1]), match[0]))
        return text[:place], True, text[place + len(mark) :]
    cut = len(text) - max((_overlap(text, mark) for mark in marks), default=0)
    return text[:cut], False, text[cut:]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    """Turn token bytes into pieces of text, which may be empty but have no half a character.

    Args:
        pieces: The bytes of each token, in order.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        yield decoder.decode(piece)
    yield decoder.decode(b"", final=True)
