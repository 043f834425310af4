"""Protected spans: what every rewrite must keep as the user wrote it.

`_SCANNERS` lists what they are. A rewrite is read in the same way. It keeps them if it has the
same spans as often as the prompt, and those of one kind in the same order: neither "115 km" nor
"15 km/h" keeps "15 km". More may stand between and around them: the user's text may be quoted.

Every scanner reads a text once, so the time to find spans grows with its length and no faster.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from alignpro_lite.errors import InputError
from alignpro_lite.rewriting.scripts import LETTER
from alignpro_lite.rewriting.spans import units
from alignpro_lite.rewriting.spans.delimiters import (
    BRACKETS,
    ELEMENTS,
    FORMULAS,
    MARKERS,
    QUOTES,
    calls,
    code_in_backticks,
)
from alignpro_lite.rewriting.spans.links import addresses
from alignpro_lite.rewriting.spans.options import (
    announced_options,
    answers_to_choose,
    listed_options,
)
from alignpro_lite.rewriting.spans.quantities import words_and_numbers
from alignpro_lite.rewriting.spans.rows import code_lines, quoted_lines, table_rows
from alignpro_lite.rewriting.spans.units import UNSPACED_NUMBER

SpanKind = Literal[
    "keep",
    "code",
    "quote",
    "formula",
    "option",
    "answer",
    "table",
    "link",
    "number",
    "word",
    "pattern",
]
Found = tuple[SpanKind, int, int]
"""Kind, start and end of a span."""

_NEW_SENTENCE = re.compile(r"(?:(?<=[.!?。！？…]) +| +(?=\S+(?: \S+){3})|\s*\n\s*)[^\W\d_a-z]")
"""In one line without a full stop before it, two or three words may go on: New | New York."""
_IS_LETTER = re.compile(LETTER)
_WORD = re.compile(r"[^\W\d_]{3,}")
_TAG = re.compile(r"<(?:[/!?]?[A-Za-z-]|[%!?])[^<>]*+>")
_OPERATOR = re.compile(r"(?<=\S )(?:<?[-=]+>|<[-=]*>?|>=?|[-=!:+*/]=+|&&|\|\||\*\*?)(?= \S)")
# Options of a command: --verbose, -v, -xzvf. Longer words after a dash may be prose.
_FLAG = re.compile(
    r"(?<!\S)--[A-Za-z][\w-]*+(?:=\S*[^\s.,;:!?])?"
    r"|(?<=\S )-(?:[A-Za-z]{1,2}|[b-df-hj-np-tv-z]{3,6})\b"
)
# An equation or a sum that is not marked as a formula: y = ax + b. A dash alone is punctuation.
_TERM = r"[\w^()²³'′\\]{1,12}+(?:\.\w{1,9}+)?+"
_EQUATION = re.compile(
    rf"(?<!\S)[-−]?{_TERM}(?: [-−] {_TERM}){{0,9}}+ [+*=<>≤≥≠≈×÷·±∈] {_TERM}"
    rf"(?: [-−+*/=<>≤≥≠≈×÷·±∈] {_TERM}){{0,19}}+(?![^\s.,;:!?])"
)


def _matches(pattern: re.Pattern[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (hit.span() for hit in pattern.finditer(text))


_SCANNERS: tuple[tuple[SpanKind, Callable[[str], Iterator[tuple[int, int]]]], ...] = (
    ("code", code_in_backticks),
    ("code", code_lines),
    ("code", _matches(_TAG)),
    ("code", calls),
    ("word", _matches(_OPERATOR)),
    ("word", _matches(_FLAG)),
    *(("code", delimiters.spans) for delimiters in (*BRACKETS, *ELEMENTS)),
    *(("quote", delimiters.spans) for delimiters in QUOTES),
    ("quote", quoted_lines),
    *(("formula", delimiters.spans) for delimiters in FORMULAS),
    ("formula", _matches(_EQUATION)),
    ("option", listed_options),
    ("answer", answers_to_choose),
    ("option", announced_options),
    ("table", table_rows),
    ("link", addresses),
    ("number", _matches(UNSPACED_NUMBER)),
)
"""What is protected besides `words_and_numbers`, and how it is found."""


@dataclass(frozen=True)
class Span:
    """A protected piece of a prompt.

    Attributes:
        kind: What it was recognised as.
        start: Index of its first character.
        text: The characters.
    """

    kind: SpanKind
    start: int
    text: str

    @property
    def end(self) -> int:
        """Index after its last character."""
        return self.start + len(self.text)


@dataclass(frozen=True)
class Protected:
    """A prompt and what a rewrite of it has to keep.

    Attributes:
        prompt: x, without `<keep>` markers.
        spans: In the order of the prompt; spans inside other spans are left out.
    """

    prompt: str
    spans: tuple[Span, ...]

    @property
    def bare(self) -> str:
        """The prompt without its spans: the user's own words."""
        pieces, place = [], 0
        for span in self.spans:
            pieces.append(self.prompt[place : span.start])
            place = span.end
        return " ".join([*pieces, self.prompt[place:]])

    def broken_by(self, rewrite: str) -> tuple[Span, ...]:
        """The spans that a rewrite does not keep, in the order of the prompt."""
        whole = self.prompt.rstrip()
        if rewrite.startswith(f"{whole}\n\n"):
            return ()  # It only adds a paragraph, as a hint is added.
        if rewrite.startswith(whole) and _NEW_SENTENCE.match(rewrite, len(whole)):
            # Not a part of the last option or line of code.
            rewrite = f"{whole}\n\n{rewrite[len(whole) :]}"
        starts = self._starts_in(rewrite)
        reached: dict[SpanKind, int] = {}
        broken = []
        for span in self.spans:
            places = starts[_key(span.kind, span.text)]
            following = bisect_right(places, reached.get(span.kind, -1))
            if following == len(places):
                broken.append(span)
            else:
                reached[span.kind] = places[following]
        return tuple(broken)

    def _starts_in(self, rewrite: str) -> defaultdict[str, list[int]]:
        """Where each span is in a rewrite, unless it is inside another of them."""
        lengths = {len(span.text) for span in self.spans}
        found = [*_scanned(rewrite), *self._literals_in(rewrite)]
        starts: defaultdict[str, list[int]] = defaultdict(list)
        covered = 0
        for kind, start, end in sorted(found, key=_outer_first):
            if end > covered and end - start in lengths:
                key = _key(kind, rewrite[start:end])
                if key in self._keys:
                    starts[key].append(start)
                    covered = end
        return starts

    def _literals_in(self, rewrite: str) -> Iterator[Found]:
        """What no scanner finds: text that was marked, or matched a pattern of the user."""
        literals = {
            (span.text, *_word_ends(self.prompt, span.start, span.end)): span.kind
            for span in self.spans
            if span.kind in ("keep", "pattern")
        }
        for (text, *ends), kind in literals.items():
            start = rewrite.find(text)
            while start >= 0:
                end = start + len(text)
                here = _word_ends(rewrite, start, end)
                stands_alone = all(here[side] or not needed for side, needed in enumerate(ends))
                if stands_alone:
                    yield kind, start, end
                start = rewrite.find(text, end if stands_alone else start + 1)

    @cached_property
    def _keys(self) -> frozenset[str]:
        return frozenset(_key(span.kind, span.text) for span in self.spans)


def compile_patterns(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """The user's own regular expressions.

    Raises:
        InputError: One of them is not a regular expression, or matches the empty string.
    """
    compiled = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(
                f"A pattern to protect must be a regular expression, found {pattern!r} ({error}).",
                "Escape special characters with a backslash.",
            ) from error
        if expression.match(""):
            raise InputError(
                f"A pattern to protect must match some text, found {pattern!r}, which also "
                "matches the empty string.",
                "Use + instead of *.",
            )
        compiled.append(expression)
    return tuple(compiled)


def protect(text: str, patterns: Sequence[re.Pattern[str]] = ()) -> Protected:
    """Find what a rewrite must keep, and take out the `<keep>` markers.

    Args:
        text: What the user wrote.
        patterns: The user's own, see `compile_patterns`.
    """
    prompt, found = _without_markers(text)
    found += _scanned(prompt)
    for pattern in patterns:
        found += _trimmed("pattern", prompt, (hit.span() for hit in pattern.finditer(prompt)))
    return Protected(prompt, tuple(_outermost(prompt, found)))


def _without_markers(text: str) -> tuple[str, list[Found]]:
    pieces: list[str] = []
    spans: list[tuple[int, int]] = []
    length = place = 0
    for start, end in MARKERS.spans(text):
        before, kept = text[place:start], text[start + len("<keep>") : end - len("</keep>")]
        pieces += before, kept
        spans.append((length + len(before), length + len(before) + len(kept)))
        length = spans[-1][1]
        place = end
    prompt = "".join([*pieces, text[place:]])
    return prompt, list(_trimmed("keep", prompt, spans))


def _scanned(text: str) -> Iterator[Found]:
    """All spans of a text, also those inside others."""
    yield from words_and_numbers(text)
    for kind, scan in _SCANNERS:
        yield from _trimmed(kind, text, scan(text))


def _trimmed(kind: SpanKind, text: str, spans: Iterable[tuple[int, int]]) -> Iterator[Found]:
    """Spans without the white space at their ends; those of white space only are left out."""
    for start, end in spans:
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start < end:
            yield kind, start, end


def _key(kind: SpanKind, text: str) -> str:
    """What two spans must share to be the same: "Three", but not "5 MW", is so in small letters."""
    if kind == "number":
        return _WORD.sub(lambda word: units.uncapitalised(word[0]), text)
    return text.lower() if kind == "answer" else text


def _outer_first(span: Found) -> tuple[int, int]:
    _, start, end = span
    return start, -end


def _outermost(prompt: str, found: Sequence[Found]) -> Iterator[Span]:
    covered = 0
    for kind, start, end in sorted(found, key=_outer_first):
        if end > covered:
            yield Span(kind, start, prompt[start:end])
            covered = end


def _word_ends(text: str, start: int, end: int) -> tuple[bool, bool]:
    """Whether a word begins at the start of a piece of text, and whether one ends at its end."""
    return (
        _IS_LETTER.match(text, start) is not None and not _IS_LETTER.match(text[start - 1 : start]),
        _IS_LETTER.match(text, end - 1) is not None and not _IS_LETTER.match(text, end),
    )
