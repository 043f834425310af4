"""Token bytes to readable text: whole characters only, stop strings held back."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence


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
        found = [(place, stop) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            # The one that is complete first, so that the cut does not depend on the pieces.
            place, _ = min(found, key=lambda match: (match[0] + len(match[1]), match[0]))
            self.found = True
            shown, self._held = self._held[:place], ""
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def end(self) -> str:
        """The text that was held back but is not a stop string."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


def text_pieces(pieces: Iterator[bytes], stops: StopStrings) -> Iterator[str]:
    """Turn token bytes into non-empty pieces of text, ending at a stop string.

    Args:
        pieces: The bytes of each token, in order.
        stops: Where to end; `stops.found` says afterwards whether it did.

    Yields:
        Text to show at once, never empty, never with half a character.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        shown = stops.feed(decoder.decode(piece))
        if shown:
            yield shown
        if stops.found:
            return
    shown = stops.feed(decoder.decode(b"", final=True)) + stops.end()
    if shown:
        yield shown
