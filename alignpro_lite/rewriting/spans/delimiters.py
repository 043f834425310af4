"""Spans between two delimiters: quotes, brackets, formulas, elements of HTML, code in backticks.

Each is found in one pass over a text: delimiters without a partner cost no more than others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from alignpro_lite.rewriting.scripts import LETTER, word_list

_PARAGRAPH = r"\n[ \t\r]*+\n"


@dataclass(frozen=True)
class Delimiters:
    """What opens and closes a span, as regular expressions.

    Attributes:
        opens: The opening delimiter, with what must be around it.
        closes: Likewise.
        hint: Characters of the opening delimiter; a text without them is not searched.
        nests: Whether one span may be inside another.
        paragraph: Whether a span ends within its paragraph.
    """

    opens: str
    closes: str
    hint: str
    nests: bool = True
    paragraph: bool = False

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of each span, inner ones first."""
        if self.hint not in text:
            return
        opens, closes, marks = self._compiled
        open_at: list[int] = []
        for mark in marks.finditer(text):
            start = mark.start()
            if open_at and (closing := closes.match(text, start)):
                yield open_at.pop(), closing.end()
            elif mark[0].isspace():
                open_at.clear()
            # A quote of several paragraphs is opened again at each of them, and closed once.
            elif opens.match(text, start) and not (
                open_at and (not self.nests or text.endswith("\n\n", 0, start))
            ):
                open_at.append(start)

    @cached_property
    def _compiled(self) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
        marks = [self.opens, self.closes, *([_PARAGRAPH] if self.paragraph else [])]
        return re.compile(self.opens), re.compile(self.closes), re.compile("|".join(marks))


def _pair(characters: str) -> Delimiters:
    """One that only opens, and those that close it."""
    opens, closes = characters[0], characters[1:]
    return Delimiters(re.escape(opens), f"[{re.escape(closes)}]", opens)


def _turned(characters: str) -> Delimiters:
    """One that opens in some languages and closes in others, as in »…« and ”…”."""
    opens, closes = characters[0], characters[1:]
    around = rf"(?<!\w){opens}(?=[\w¿¡(\[„‚'\"-])"
    return Delimiters(around, f"(?<=\\S)[{closes}](?!{LETTER})", opens, nests=False, paragraph=True)


def _straight(mark: str, hint: str) -> Delimiters:
    """One that opens and closes alike; after a word, as in `5" pipe`, it does not open."""
    return Delimiters(
        f"(?:(?<!{LETTER}){mark}|{mark}(?={LETTER}))",
        f"(?:{mark}(?!{LETTER})|(?<={LETTER}){mark})",
        hint,
        nests=False,
    )


def _element(name: str) -> Delimiters:
    """An element of HTML with all that is in it."""
    return Delimiters(rf"(?i:<{name}\b)[^<>]*+>", rf"(?i:</{name}\s*+>)", "</")


_APOSTROPHE = "(?<!')'(?!')"

QUOTES = (
    # One or three; two are an empty string.
    _straight('(?<!")"(?:"")?(?!")', '"'),
    _straight("＂", "＂"),
    # Not the apostrophes of "don't" and "the users' files".
    Delimiters(
        rf"(?<!{LETTER}){_APOSTROPHE}(?=\S)",
        rf"(?<=\S){_APOSTROPHE}(?!{LETTER})",
        "'",
        nests=False,
        paragraph=True,
    ),
    Delimiters("‘", f"’(?!{LETTER})", "‘", paragraph=True),
    Delimiters("‚(?=\\S)", f"[‘’](?!{LETTER})", "‚", paragraph=True),
    *map(_pair, ("“”", '„“”"', "‟”", "❝❞", "〝〞〟")),
    Delimiters(f"(?<!{LETTER})«", "»", "«"),
    Delimiters(f"(?<!{LETTER})‹", "›", "‹"),
    *map(_pair, ("「」", "『』", "《》", "〈〉", "﹁﹂", "﹃﹄", "｢｣")),
    *map(_turned, ("””", "’’", "»«»", "›‹›")),
    # As they are typed where the keyboard has no quotes: ,,Ala'' and ''Ala''.
    Delimiters(r"(?<![\w,]),,(?=[^\s,])", "(?<=\\S)(?:''|[\"“”])", ",,", False, True),
    Delimiters(r"(?<![\w'])''(?=[\w¿¡(\[])", r"(?<=[^\s'])''(?![\w'])", "''", False, True),
    Delimiters("(?<!`)``(?![`\\s])", "(?<![\\s'])''(?!')", "``", nests=False),
    Delimiters("<<", ">>", "<<"),
    Delimiters("&quot;", "&quot;", "&quot;", nests=False),
    Delimiters("&(?:ldquo|laquo);", "&(?:rdquo|raquo);", "quo;"),
)
BRACKETS = tuple(map(_pair, ("[]", "{}", "［］", "｛｝", "【】", "〔〕", "⟨⟩")))
FORMULAS = (
    Delimiters(r"\\\(", r"\\\)", r"\("),
    Delimiters(r"\\\[", r"\\\]", r"\["),
    Delimiters(r"\\begin\{", r"\\end\{[^{}\n]*+\}", r"\begin{"),
    Delimiters(r"\$\$", r"\$\$", "$$", nests=False),
    # Not the prices of "$5 to $10".
    Delimiters(r"(?<![\w$\\])\$(?=[^\s$])", r"(?<=[^\s$\\])\$(?![\d$])", "$", False, True),
)
_CALLS = Delimiters(
    # Not the plural of "word(s)".
    r"(?<![\w.])\w[\w.]*+['′]{0,3}\((?!(?:s|es|ies|e|n|en|r)\))|\(",
    r"\)",
    "(",
    paragraph=True,
)
ELEMENTS = tuple(map(_element, word_list("code pre kbd samp script style svg math table q")))
MARKERS = Delimiters("<keep>", "</keep>", "<keep>", nests=False)

# A list item may begin with a fence.
_BACKTICKS = re.compile(
    r"(?m)(?P<begin>^[ \t>]*+(?:(?:[-*+]|\d{1,3}[.)])[ \t]++)?+)?+(?P<run>`++|~{3,}+)"
    r"(?P<end>[ \t\r]*+$)?+"
)


def calls(text: str) -> Iterator[tuple[int, int]]:
    """Calls of functions with all that stands in their parentheses."""
    return ((start, end) for start, end in _CALLS.spans(text) if text[start] != "(")


def code_in_backticks(text: str) -> Iterator[tuple[int, int]]:
    """Fenced blocks and inline code, read as CommonMark does.

    A fence may also begin within a line; without an end it goes on to the end of the text.
    """
    runs = list(_BACKTICKS.finditer(text))
    alike = _next_alike([run["run"] for run in runs])
    place = 0
    while place < len(runs):
        run = runs[place]
        fence = _opens_fence(text, runs, place)
        closing = _closing_fence(runs, place) if fence else alike[place]
        if closing is not None:
            yield run.start("run"), runs[closing].end("run")
            place = closing
        elif fence or (len(run["run"]) >= 3 and run["run"][0] == "`"):
            yield run.start("run"), len(text)
            return
        place += 1


def _next_alike(runs: Sequence[str]) -> list[int | None]:
    """For each run of backticks, the place of the next that is as long."""
    seen: dict[str, int] = {}
    found: list[int | None] = []
    for place in range(len(runs) - 1, -1, -1):
        run = runs[place]
        found.append(seen.get(run) if run[0] == "`" else None)
        seen[run] = place
    return found[::-1]


def _opens_fence(text: str, runs: Sequence[re.Match[str]], place: int) -> bool:
    run = runs[place]
    if run["begin"] is None or len(run["run"]) < 3:
        return False
    if run["run"][0] == "~" or place + 1 == len(runs):
        return True
    return "\n" in text[run.end() - 1 : runs[place + 1].start("run")]


def _closing_fence(runs: Sequence[re.Match[str]], place: int) -> int | None:
    opening = runs[place]["run"]
    for later in range(place + 1, len(runs)):
        run = runs[later]
        if run["begin"] is not None and run["end"] is not None and run["run"].startswith(opening):
            return later
    return None
