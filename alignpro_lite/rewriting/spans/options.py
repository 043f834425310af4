"""The options of a question: A) and B), [1] and [2], ①②, yes or no, or a list after "Options:"."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from alignpro_lite.rewriting.scripts import LETTER, UNSPACED, word_list

_FURTHEST = 1000
"""Characters from the start of one option to that of the next."""
_ANNOUNCED_WITHIN = 60
"""Characters before a colon that may say what follows it."""

_ORDERED = (
    word_list("i ii iii iv v vi vii viii ix x"),
    word_list("I II III IV V VI VII VIII IX X"),
    *map(
        list,
        (
            "一二三四五六七八九十",
            "甲乙丙丁戊",
            "アイウエオ",
            "いろはにほ",
            "가나다라마",
            "ابجده",
            "أبجده",
            "אבגדה",
            "กขคงจ",
            "कखगघङ",
            "अबसद",
            "কখগঘঙ",
        ),
    ),
)
"""Labels that do not follow one another in Unicode."""
_UNSPACED_LABELS = "".join(map("".join, _ORDERED[2:]))
_LABEL = rf"(?:[^\W\d_{UNSPACED}]|[Ａ-Ｚａ-ｚ０-９]|\d{{1,2}}|[ivxIVX]{{1,4}}|[{_UNSPACED_LABELS}])"
_MARKER = re.compile(
    rf"""(?mx)
    (?P<line>^[ \t>]*+(?:\*\*|__)?+)?+
    (?P<marker>
      (?<!{LETTER})[(\[（［【〔][ ]?{_LABEL}[ ]?[)\]）］】〕]
    | (?<!{LETTER})(?<![(\[（［【〔.,:/'’-]){_LABEL}
      (?:[)\]）］】．：、](?![,;.]) | [.:/-](?=[*_]{{0,3}}(?:\s|\Z)|[{UNSPACED}]))
    | [①-⓿❶-➓㈠-㈩㊀-㊉⒈-⒛] | \d\ufe0f?\u20e3
    | (?(line) (?:
        (?: {_LABEL}[ \t]++[-–—|=] | [-*+•‣⁃◦▪▸►●○■□☐☑✓✔·–—→] )(?=[ \t]++\S)
      | ・(?=\S) | [✅❌✗✘⭐🔹🔸👉]\ufe0f?(?=[ \t]*+\S)
      ) | (?!))
    )
    """
)

_ANSWERS = frozenset(
    word_list("""
    yes no maybe unknown true false correct incorrect right wrong agree disagree positive negative
    neutral sì nej nei kyllä ei ναι όχι так ні ano áno ne igen nem da nu כן có không ya tidak بله
    خیر ja nein nee oui non vrai faux sí si verdadero falso vero sim não да нет правда ложь evet
    hayır tak nie نعم لا हाँ नहीं
    """)
)
_UNSPACED_ANSWER = "(?:不是|没有|是|否|对|错|對|錯|有|はい|いいえ|예|아니요|아니오|네)"
_UNSPACED_ANSWERS = re.compile(
    rf"{_UNSPACED_ANSWER}(?:[ ]?(?:/|、|，|或者?|还是|還是|または|か|또는)[ ]?{_UNSPACED_ANSWER})+"
)
_SPACED_WORD = re.compile(f"{LETTER}+")
_OR = re.compile(
    r"\s?[/,|;]\s?(?:(?:or|oder|ou|o|или|and)\s)?"
    r"|\s(?i:or|versus|vs\.?|oder|ou|o|ó|of|eller|tai|или|або|lub|albo|czy|nebo|alebo|vagy|sau"
    r"|veya|ή|או|hay|atau|أو|أم|یا|या)\s"
)
_ANNOUNCEMENT = re.compile(
    r"""(?ix)(?:^|\W)
    (?:options?|choices?|candidates|categories|classes|labels|alternatives
      |one[ ]of|(?:choose|select|pick)[ ](?:from|one)
      |optionen|auswahl|kategorien|choix|catégories|opciones|categorías|opzioni|opções|варианты
      |варіанти|opcje|możliwości|možnosti|opties|keuzes|alternativ\w*|muligheder|vaihtoehdot
      |lehetőségek|opțiuni|variante|επιλογές|seçenekler|pilihan|opsi|lựa[ ]chọn|الخيارات|خيارات
      |گزینه‌ها|אפשרויות|विकल्प)
    (?:[ ]\w{1,20}){0,3}[ ]?$
    | (?:选项|選項|选择|選択肢|보기|ตัวเลือก).{0,4}$"""
)
_COLON = re.compile("[:：]")
_REST = re.compile(r"[ \t]*+\S[^\n]*+|[ \t\r]*+\n(?:[^\n]*?\S[^\n]*+(?:\n|\Z))++")


class _Option(NamedTuple):
    """Where an option begins, whether its line does so too, and its place in a sequence."""

    start: int
    begins_line: bool
    number: int


def listed_options(text: str) -> Iterator[tuple[int, int]]:
    """Two or more options: numbered in sequence, or on lines that follow one another."""
    sequences: dict[tuple[str, str], list[_Option]] = defaultdict(list)
    for hit in _MARKER.finditer(text):
        for sequence, number in _places(hit["marker"]):
            option = _Option(hit.start("marker"), hit["line"] is not None, number)
            sequences[sequence].append(option)
    for found in sequences.values():
        for first, last in _chains(text, found):
            end = text.find("\n", last.start)
            yield first.start, len(text) if end < 0 else end


def answers_to_choose(text: str) -> Iterator[tuple[int, int]]:
    """Yes or no, true or false, in several languages."""
    for hit in _UNSPACED_ANSWERS.finditer(text):
        yield hit.span()
    before: re.Match[str] | None = None
    for word in _SPACED_WORD.finditer(text):
        if word[0].lower() not in _ANSWERS:
            continue
        if before is not None and _OR.fullmatch(text, before.end(), word.start()):
            yield before.start(), word.end()
        before = word


def announced_options(text: str) -> Iterator[tuple[int, int]]:
    """What stands after "Options:", on the line or in the paragraph below it."""
    reached = 0
    for colon in _COLON.finditer(text):
        # What is announced within announced options is one of them, and is not read again.
        if colon.start() < reached:
            continue
        place = max(0, colon.start() - _ANNOUNCED_WITHIN)
        announcement = _ANNOUNCEMENT.search(text[place : colon.start()])
        if announcement and (rest := _REST.match(text, colon.end())):
            reached = rest.end()
            yield rest.span()


def _chains(text: str, found: Sequence[_Option]) -> Iterator[tuple[_Option, _Option]]:
    """First and last of the options that belong together."""
    first = last = found[0]
    for option in found[1:]:
        if _follows(text, last, option) and (first.begins_line or first.number == 0):
            last = option
            continue
        if first is not last:
            yield first, last
        first = last = option
    if first is not last:
        yield first, last


def _follows(text: str, option: _Option, later: _Option) -> bool:
    if later.start - option.start > _FURTHEST:
        return False
    if later.number == option.number + 1:
        return True
    between = text[option.start : later.start].rstrip(" \t\r\n>*_")
    return option.begins_line and later.begins_line and "\n" not in between


@lru_cache(maxsize=4096)
def _places(marker: str) -> tuple[tuple[tuple[str, str], int], ...]:
    """The sequences of a marker and its place in each: `i)` is a letter and a roman numeral."""
    plain = unicodedata.normalize("NFKC", marker)
    label = "".join(filter(str.isalnum, plain))
    if not label:
        return ((("bullet", ""), -1),)  # ✅ and ❌ are of one list
    shape = "".join(character for character in plain if not character.isalnum())
    if label.isdecimal():
        return ((("digit", shape), int(label) - 1),)
    found = [
        ((ordered[0], shape), ordered.index(label)) for ordered in _ORDERED if label in ordered
    ]
    if len(label) == 1:
        first = next((a for a in "AaАаΑα" if 0 <= ord(label) - ord(a) < 32), "\0")
        found.append(((first, shape), ord(label) - ord(first)))
    return tuple(found) or ((("bullet", shape), -1),)
