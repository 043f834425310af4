"""Markers, such as special tokens, in rendered text: those of the template, and those of a user.

A marker structures a prompt where the template wrote it. Where a message holds the same characters,
or a part of them, it is text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from alignpro_lite.errors import InputError

ROLES = ("system", "user", "assistant")
_OPENING, _CLOSING = ("Ps", "Pi", "Sm"), ("Pe", "Pf", "Sm")
"""Unicode's categories of brackets, quotes and signs such as `<` and `|`."""

_HTML_TAG = re.compile(
    r"</?(a|article|b|blockquote|body|button|caption|code|dd|div|dl|dt|em|figure|footer|form|h[1-6]"
    r"|head|header|html|i|iframe|img|input|label|li|main|nav|ol|option|p|pre|q|s|script|section"
    r"|select|small|span|strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|u"
    r"|ul|video)>"
)
"""Gemma's vocabulary has tokens for such tags."""

Stretch = tuple[int, int]
"""Start and end of a stretch of text."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as one text.

    Attributes:
        text: The characters.
        own: Where the template wrote them, in order; the rest are the messages'.
        doubtful: The messages, if the template makes something of them that cannot be followed;
            then `own` is all of the text. "" otherwise.
        harmless: What the template makes of harmless messages in place of doubtful ones.
    """

    text: str
    own: tuple[Stretch, ...] = ()
    doubtful: str = ""
    harmless: str = ""

    def find(self, markers: Iterable[str]) -> MarkersFound:
        """Find every occurrence of markers.

        Raises:
            InputError: One may come from the template and from a message.
        """
        own: list[Stretch] = []
        foreign: list[Stretch] = []
        for marker in markers:
            if self._may_be_typed(marker):
                raise InputError(
                    f"The model's chat template changes messages, found one that holds {marker!r}, "
                    "or becomes it; it has a meaning for this model.",
                    "Take it out of the prompt, or use another model.",
                )
            for span in _occurrences(self.text, marker):
                (own if self._is_own(*span) else foreign).append(span)
        return MarkersFound(_apart(own), tuple(foreign))

    def _may_be_typed(self, marker: str) -> bool:
        """Whether a marker may come from doubtful messages, which a template can also make it of.

        `<|im_/no_thinkend|>` is harmless until a template takes `/no_think` out.
        """
        made = self.doubtful and self.text.count(marker) > self.harmless.count(marker)
        return bool(made) or marker in self.doubtful

    def _is_own(self, start: int, end: int) -> bool:
        """Whether the template wrote a marker, except for white space and the name of a role."""
        strange = self._strange[start:end]
        return "\0" in strange and all(part.strip() in ("", *ROLES) for part in strange.split("\0"))

    @cached_property
    def _strange(self) -> str:
        """The text, its own characters replaced with a NUL and the NULs of messages with a 1."""
        parts, place = [], 0
        for start, end in self.own:
            parts += [self.text[place:start].replace("\0", "\1"), "\0" * (end - start)]
            place = end
        return "".join([*parts, self.text[place:].replace("\0", "\1")])


@dataclass(frozen=True)
class MarkersFound:
    """The markers in a rendered conversation.

    Attributes:
        own: Those that the template wrote, in order; where some overlap, the first and longest.
        foreign: All others, which may overlap.
    """

    own: tuple[Stretch, ...]
    foreign: tuple[Stretch, ...]

    def cuts(self) -> set[int]:
        """Where to cut the text so that no piece holds a whole marker of a message.

        No cut lies inside a marker of the template. A single character cannot be cut: it becomes a
        piece of its own.
        """
        kept = {place for start, end in self.own for place in range(start + 1, end)}
        places: set[int] = set()
        for start, end in self.foreign:
            if end - start == 1:
                places |= {start, end}
            else:
                places.update([place for place in range(start + 1, end) if place not in kept][:1])
        return places


def is_marker(token: str, template: str) -> bool:
    """Whether a token marks structure, so that it must not come from a user's text.

    Its type in the vocabulary does not say it: published models keep `<think>` and `<tool_call>` as
    they keep runs of white space, HTML tags and added words, which are text like any other.

    Args:
        token: How it is written.
        template: All that the chat template may write.
    """
    if len(token) < 2 or token.isspace():
        return False
    return token in template or (_is_bracketed(token) and not _HTML_TAG.fullmatch(token))


def _is_bracketed(token: str) -> bool:
    """Whether it looks like `<think>`, `[INST]` or `<|user|>`: a name between brackets or signs."""
    inner = token.strip()
    sides = unicodedata.category(inner[0]), unicodedata.category(inner[-1])
    return sides[0] in _OPENING and sides[1] in _CLOSING and any(map(str.isalnum, inner))


def _occurrences(text: str, marker: str) -> Iterator[Stretch]:
    """Where a marker stands, also where it overlaps itself."""
    place = text.find(marker)
    while place >= 0:
        yield place, place + len(marker)
        place = text.find(marker, place + 1)


def _apart(spans: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Of stretches that overlap, the first and longest."""
    kept: list[Stretch] = []
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end))
    return tuple(kept)
