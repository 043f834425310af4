"""Protected spans: what every rewrite must keep as the user wrote it.

These are code, quoted strings, options of a multiple-choice question, what the user's own patterns
match, text between `<keep>` and `</keep>`, and every word with a digit or a sign of code in it:
URLs, e-mail addresses, file paths, numbers with their units. A rewrite keeps a span if it contains
the same characters as often as the prompt does, each time as a word of its own: neither "115 km"
nor "15 km/h" keeps "15 km".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from alignpro_lite.errors import InputError

SpanKind = Literal["keep", "code", "quote", "option", "pattern", "number", "word"]

# Scripts written without spaces: a word ends where they begin.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uffef"
)
_LETTER = f"[^\\W{_UNSPACED}]"
_TOKEN = re.compile(f"[^\\s{_UNSPACED}\"'“”„«»‹›‘’`]+")
_AROUND = "([{<.,;:!?>}])*…،؛؟|"
_SIGN = re.compile(r"\d|[/\\@_=#$<>{}\[\]|~^*&+%]|\w{2,}\.\w|\w\.\w{2,}")
_PLAIN_NUMBER = re.compile(r"[-+±−€$£¥₹]*\d(?:[\d.,:/٫٬-]*\d)?")
_UNIT = re.compile(
    r"[%‰°€$£¥₹]|°[CF]|[munpkcdMGTP]?(?:m|s|g|l|L|B|W|V|A|J|N|Hz|Pa|eV|bit|mol|cal)[²³]?"
    r"|[KMGTP]i?[Bb](?:ps|/s)?|km/h|mph|m/s|min|hrs?|h|d|ft|yd|mi|lbs?|oz|px|pt|rem|em|dpi|fps"
    r"|[ap]\.?m|AM|PM|EUR|USD|GBP|CHF|percent|years?|months?|weeks?|days?|hours?|minutes?|seconds?"
    r"|(?:kilo|centi|milli)?(?:met(?:er|re)|gram|lit(?:er|re))s?|miles?|feet|foot|inch(?:es)?"
    r"|dollars?|euros?|pounds?|degrees?|words?|sentences?|paragraphs?|characters?|pages?"
    r"|км|м|см|мм|кг|г|л|ч|мин|сек|руб|км/ч|كم|م|سم|مم|كغ|كجم|غ|لتر|دقيقة|ساعة|يوم|सेमी|किमी|किलो"
)
_KEEP = re.compile(r"<keep>(.*?)</keep>", re.DOTALL)
_OPTION = r"\(?(?:[A-Za-z]|\d{1,2})[).][ \t]"
_WHOLE: tuple[tuple[SpanKind, re.Pattern[str]], ...] = (
    ("code", re.compile(r"(?s)(`{3,}|~{3,}).*?(?:\1[`~]*|\Z)")),
    ("code", re.compile(r"(?<!`)(?:``(?!`)[^\n]+?(?<!`)``|`(?!`)[^`\n]+`)(?!`)")),
    ("quote", re.compile(r'"[^"\n]+"|“[^”\n]+”|„[^“”\n]+[“”]|«[^»\n]+»|‹[^›\n]+›|「[^」\n]+」')),
    # Not the apostrophes of "don't" and "the users' files".
    ("quote", re.compile(r"(?<!\w)(['‘])(?=\S)(?:[^'’\n]|(?<=\w)['’](?=\w))*(?<=\S)['’](?!\w)")),
    # At least two of them, on lines of their own or on one line.
    ("option", re.compile(rf"(?m)^[ \t]*{_OPTION}.*(?:\r?\n[ \t]*{_OPTION}.*)+")),
    ("option", re.compile(r"(?m)\(?\b[Aa1][).][ \t]\S.*?[ \t,;]\(?\b[Bb2][).][ \t]?\S.*$")),
)


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
        words = [
            Counter(span.text for span in _code_like_words(text)) for text in (self.prompt, rewrite)
        ]
        broken = []
        for span in self.spans:
            if span.kind in ("word", "number"):
                needed, found = (counted[span.text] for counted in words)
            else:
                pattern = _as_it_stands(span, self.prompt)
                needed, found = (len(pattern.findall(text)) for text in (self.prompt, rewrite))
            if found < needed:
                broken.append(span)
        return tuple(broken)


def compile_patterns(patterns: Sequence[str]) -> tuple[re.Pattern[str], ...]:
    """The user's own regular expressions.

    Raises:
        InputError: One of them is not a regular expression, or matches the empty string.
    """
    compiled = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
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
    prompt, kept = _without_markers(text)
    found = [*kept, *_wholes(prompt), *_code_like_words(prompt)]
    for pattern in patterns:
        found += [Span("pattern", hit.start(), hit[0]) for hit in pattern.finditer(prompt)]
    return Protected(prompt, tuple(_outermost(found)))


def _without_markers(text: str) -> tuple[str, list[Span]]:
    pieces: list[str] = []
    spans: list[Span] = []
    place = 0
    for hit in _KEEP.finditer(text):
        pieces.append(text[place : hit.start()])
        if hit[1].strip():
            spans.append(Span("keep", sum(map(len, pieces)), hit[1]))
        pieces.append(hit[1])
        place = hit.end()
    return "".join([*pieces, text[place:]]), spans


def _wholes(text: str) -> Iterator[Span]:
    """Spans that may contain spaces."""
    for kind, pattern in _WHOLE:
        for hit in pattern.finditer(text):
            kept = hit[0].strip()
            yield Span(kind, hit.start() + hit[0].index(kept), kept)


def _code_like_words(text: str) -> Iterator[Span]:
    """Words with a digit or a sign of code; numbers with their units."""
    cores = [core for hit in _TOKEN.finditer(text) if (core := _core(hit))]
    for place, (start, word) in enumerate(cores):
        if not _SIGN.search(word):
            continue
        if not _PLAIN_NUMBER.fullmatch(word):
            yield Span("word", start, word)
            continue
        end = start + len(word)
        if re.match(f"[{_UNSPACED}]", text[end : end + 1]):
            end += 1
        elif place + 1 < len(cores):
            following, unit = cores[place + 1]
            if following == end + 1 and _UNIT.fullmatch(unit):
                end = following + len(unit)
        yield Span("number", start, text[start:end])


def _core(token: re.Match[str]) -> tuple[int, str] | None:
    """A word without the punctuation around it."""
    word = token[0].rstrip(_AROUND)
    core = word.lstrip(_AROUND)
    return (token.start() + len(word) - len(core), core) if core else None


def _outermost(spans: Sequence[Span]) -> Iterator[Span]:
    end = 0
    for span in sorted(spans, key=lambda span: (span.start, -len(span.text))):
        if span.end > end:
            yield span
            end = span.end


def _as_it_stands(span: Span, prompt: str) -> re.Pattern[str]:
    """The characters of a span, inside a longer word only if they are so in the prompt."""
    before = _end_of_word(prompt[: span.start][-1:], span.text[0])
    after = _end_of_word(prompt[span.end : span.end + 1], span.text[-1])
    return re.compile(
        (f"(?<!{_LETTER})" if before else "")
        + re.escape(span.text)
        + (f"(?!{_LETTER})" if after else "")
    )


def _end_of_word(outside: str, inside: str) -> bool:
    return bool(re.match(_LETTER, inside)) and not re.match(_LETTER, outside)
