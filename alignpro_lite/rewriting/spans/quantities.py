"""Numbers with their units, in digits and in words, and words with a sign of code in them.

Two numbers are the same only with the same unit: neither "3 billion" nor "3 million euros" is
"3 million".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from alignpro_lite.rewriting.scripts import QUOTATION_MARKS, UNSPACED
from alignpro_lite.rewriting.spans import units
from alignpro_lite.rewriting.spans.links import without_punctuation

_TOKEN = re.compile(f"[^\\s{UNSPACED}{re.escape(QUOTATION_MARKS)}—]+")
_AROUND = "([{<.,;:!?>}])*…،؛؟|"
_LEADING = re.compile(r"[<>]?(?<!\.)\.$|[<>]$")
"""Of what stands around words, what belongs to a number that it stands before: <5, .5"""
_BEGINS_NUMBER = re.compile(r"=?\.?\d")
_FRACTION = "¼-¾⅐-↉"
_MONEY = "$¢£¤¥₠-⃏﷼"
_SIGN = re.compile(
    rf"[\d{_FRACTION}{_MONEY}①-⓿❶-➓²³¹⁰-₟/\\@_=#<>{{}}\[\]|~^*&+%§°±×÷←-⋿]|\w\w\.\w|\w\.\w\w"
    r"|\w::\w|[a-z][A-Z]"
)
_DIGITS = re.compile(
    rf"(?:[<>≤≥]=?|[-+±−–~≈])?[A-Z]{{0,2}}[{_MONEY}]*[-+−]?(?:\.?\d(?:[\d.,:/٫٬–-]*\d)?(?:[.,][-–]{{1,2}})?[{_FRACTION}]?|[{_FRACTION}])"
    rf"(?:st|nd|rd|th|er|e|º|ª)?"
)
_ATTACHED = re.compile(rf"{_DIGITS.pattern}(?P<unit>[^\W\d_]{{1,12}}|[%‰°º′″])")
_LABELS = units.MONTHS | units.LABELS
_SMALL_MONTHS = units.MONTHS - {"may", "mar", "dec", "sept"}
"""What is a month also where it is not capitalised."""
_DEGREES = frozenset("°º′″")
_COMPASS = frozenset("NSEWO")
_HAS_DIGIT = re.compile(rf"[\d{_FRACTION}]")
_GROUP = re.compile(r"\d{3}(?:[.,]\d+)?")
_JOINED = frozenset("-–−x×/+=÷^")
_ROMAN = re.compile(
    r"(?=[IVX]{2,}(?:e|ème)?$|[IVXLCDM]{4,}(?:e|ème)?$)"
    r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})(?:e|ème)?"
)
_NUMERAL = re.compile(r"[IVXLCDM]+")
_CAPITALS = re.compile(r"[A-Z]{2,5}")


class _Word(NamedTuple):
    start: int
    end: int
    text: str


def words_and_numbers(text: str) -> Iterator[tuple[Literal["number", "word"], int, int]]:
    """Kind, start and end of every number and of every word that looks like code."""
    reader = _Reader(text)
    place = 0
    while place < len(reader.words):
        word = reader.words[place]
        after = reader.quantity(place)
        if after > place:
            yield "number", reader.start_of_number(place), reader.end_of_number(after - 1)
            place = after
            continue
        if _SIGN.search(word.text):
            yield "word", word.start, word.end
        place += 1


class _Reader:
    """Reads a text word by word. Methods take the place of a word and return the place after."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = list(_words(text))

    def quantity(self, place: int) -> int:
        """After a number and its unit; `place` itself if no number begins there."""
        after = self._labelled(place) or self._number(place) or self._negative(place)
        if after > place:
            return self._unit(after)
        if after := self._attached(place):
            return after
        if self.words[place].text.lower() in units.ONE and self._near(place + 1):
            after = self._unit(self._grown(place + 1))
            return after if after > place + 1 else place
        return place

    def start_of_number(self, first: int) -> int:
        """Where a number begins: at its word, or at what an unspaced script writes before it."""
        start = self.words[first].start
        before = units.UNSPACED_BEFORE.search(self.text, max(0, start - 4), start)
        return before.start() if before else start

    def end_of_number(self, last: int) -> int:
        """Where a number ends: after its last word, or after a unit of a script without spaces."""
        return self._unspaced(last) or self.words[last].end

    def _labelled(self, place: int) -> int:
        """After a number that follows a label, as in March 5, No. 5, War II or USD 20; or 0."""
        word = self.words[place].text
        label = word.lower().rstrip(".")
        is_known = label in _LABELS
        if not word[0].isupper() and label not in _SMALL_MONTHS:
            return 0
        # The full stop of an abbreviation is not in the word.
        if not self._near(place + 1) and not (is_known and self._between(place + 1) == ". "):
            return 0
        following = self.words[place + 1].text
        if label in units.NUMBERED and (_NUMERAL.fullmatch(following) or following == "One"):
            return place + 2
        if is_known or _CAPITALS.fullmatch(word):
            after = self._number(place + 1)
            return after if _HAS_DIGIT.search(following) and after > place + 1 else 0
        return 0

    def _number(self, place: int) -> int:
        text = self.words[place].text
        if _DIGITS.fullmatch(text) or _in_words(text) or _ROMAN.fullmatch(text):
            return self._grown(place + 1)
        return 0

    def _negative(self, place: int) -> int:
        """After a number behind a word for its sign, as in minus 5; or 0."""
        if self.words[place].text.lower() not in units.MINUS or not self._near(place + 1):
            return 0
        return self._number(place + 1)

    def _attached(self, place: int) -> int:
        """After what follows a number with its unit: 5kg per day, 3M euros, 40° N; or 0."""
        hit = _ATTACHED.fullmatch(self.words[place].text)
        if not hit or not self._near(place + 1):
            return 0
        unit, following = hit["unit"], self.words[place + 1].text
        if unit in _DEGREES and following in _COMPASS:
            return place + 2
        may_go_on = unit.lower() in units.LETTER_SCALES or (
            units.is_unit(unit) and following.lower() in units.OF
        )
        after = self._unit(place + 1) if may_go_on else 0
        return after if after > place + 1 else 0

    def _grown(self, after: int) -> int:
        """After all that continues a number: 1 000, 5 - 10, 3 million, two and a half."""
        while self._near(after):
            text = self.words[after].text
            if _in_words(text) or self._is_group(after):
                after += 1
            elif text in _JOINED and self._near(after + 1) and self._begins(after + 1):
                after += 2
            elif connected := self._connected(after):
                after = connected
            else:
                break
        return after

    def _begins(self, place: int) -> bool:
        text = self.words[place].text
        return bool(_DIGITS.fullmatch(text)) or _in_words(text)

    def _is_group(self, place: int) -> bool:
        """Whether three digits continue the number before: 1 000 and 1'000, but not 2024 300."""
        before, word = self.words[place - 1], self.words[place]
        return bool(
            word.start == before.end + 1
            and _GROUP.fullmatch(word.text)
            and re.fullmatch(r"\D*\d{1,3}", before.text)
        )

    def _connected(self, place: int) -> int:
        """After "and a half" or "and twenty"; or 0."""
        after = place
        while after < place + 2 and self._near(after):
            if self.words[after].text.lower() not in units.CONNECTIVES:
                break
            after += 1
        reaches = after > place and self._near(after) and self._continues(after)
        return after + 1 if reaches else 0

    def _continues(self, place: int) -> bool:
        text = self.words[place].text
        return _in_words(text) or bool(re.fullmatch(f"[{_FRACTION}]", text))

    def _unit(self, after: int) -> int:
        """After up to three words of a unit: square metres, km per hour, de marzo."""
        if self._between(after) == ". " and self.words[after].text.lower() in units.AFTER_ORDINAL:
            return after + 1
        for _ in range(3):
            if not self._between(after).isspace() or not self._near(after):
                break  # Python 3.11's
            word = self.words[after].text
            linked = word.lower() in units.OF
            if units.is_unit(word):
                after += 1
            elif linked and self._near(after + 1) and units.is_unit(self.words[after + 1].text):
                after += 2
            else:
                break
        return after

    def _unspaced(self, last: int) -> int:
        end = self.words[last].end
        hit = units.UNSPACED_UNIT.match(self.text, end)
        if hit and hit.end() > end:
            return hit.end()
        hit = units.SPACED_UNIT.match(self.text, end)
        return hit.end() if hit else 0

    def _near(self, place: int) -> bool:
        """Whether a word follows the one before it after a space or an apostrophe only."""
        between = self._between(place)
        return (between.isspace() and len(between) < 4) or between in ("'", "’")

    def _between(self, place: int) -> str:
        """What stands before a word; nothing after the last one."""
        if place >= len(self.words):
            return ""
        return self.text[self.words[place - 1].end : self.words[place].start]


def _words(text: str) -> Iterator[_Word]:
    for token in _TOKEN.finditer(text):
        bare = token[0].lstrip(_AROUND)
        if _BEGINS_NUMBER.match(bare):
            around = token[0][: -len(bare)]
            bare = token[0][len(_LEADING.sub("", around)) :]
        core = without_punctuation(bare)
        if core:
            start = token.end() - len(bare)
            yield _Word(start, start + len(core), core)


def _in_words(text: str) -> bool:
    """Whether a word is or begins with a number: twenty, twenty-one, three-quarters, two-hour."""
    first, *rest = text.lower().split("-")
    if units.ONE_WORD_NUMBER.fullmatch(rest[-1] if rest else first):
        return True
    return first in units.NUMBER_WORDS or (
        first in units.ONE and not units.NUMBER_WORDS.isdisjoint(rest)
    )
