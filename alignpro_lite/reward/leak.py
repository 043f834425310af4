"""Does a rewrite give the answer away? Then what it earns is not the target's work."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from alignpro_lite.reward.exchange import TaskReference
from alignpro_lite.reward.gsm8k import MARK, final_number, numbers_in

_COMMA = re.compile(r"(?<=\d),(?=\d{3}\b)")
_SPACE = re.compile(r"(?<=\d) (?=\d{3}(?!\d))")
"""What separates thousands, as in 1,800 and 1 800; a space may also stand between two numbers."""
_NAME = re.compile(r"[^\W\d_]\w*|\d+(?:st|nd|rd|th)\b")
"""Words, with digits that are no amount, such as H2O and 3rd; of 1800nuts, the nuts."""
_OPENING = r"[^\w.\N{MINUS SIGN}-]*"
_TELLING = re.compile(
    rf"(?:\banswer(?:\s+\w+){{0,4}}?\s*(?:\bis\b|\bequals\b|[:=])|{MARK}){_OPENING}"
)
_EQUALS = re.compile(f"={_OPENING}")
"""What stands before an answer that is told: anywhere, and in the last sentence."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def gives_away(prompt: str, sent: str, reference: TaskReference | None) -> bool:
    """Whether x' holds the right answer; constraints on an answer are none.

    Args:
        prompt: x.
        sent: x'.
        reference: What a right answer to x is recognised by, None if that is not known.
    """
    if reference is None or reference.check == "ifeval":
        return False
    return leaks(prompt, sent, reference.text)


def leaks(prompt: str, sent: str, reference: str) -> bool:
    """Whether the final answer stands in x' and not in x, or is told there and not in x.

    The final answer is what follows the last `####` of a reference, as in GSM8K, or else all of it.
    A number is compared by its value. Any other answer must stand there as whole words; case, white
    space and what separates thousands do not count. An answer is told by "the answer is 18", by
    "#### 18" and, in the last sentence, by "= 18": so even if x holds an 18, it may be given away.

    Args:
        prompt: x.
        sent: x'.
        reference: A right answer to x.
    """
    answer = _answer_of(reference)
    if answer is None:
        return False
    return (answer.stands_in(sent) and not answer.stands_in(prompt)) or (
        _tells(sent, answer) and not _tells(prompt, answer)
    )


@dataclass(frozen=True)
class _Number:
    """An answer that is a number."""

    value: Decimal

    def stands_in(self, text: str) -> bool:
        amounts = _NAME.sub(" ", _folded(text))
        return self.value in {*numbers_in(amounts), *numbers_in(_SPACE.sub("", amounts))}

    def begins(self, text: str) -> bool:
        """Whether it is the first word of a text."""
        return any(map(self.stands_in, text.split()[:1]))


@dataclass(frozen=True)
class _Words:
    """An answer of any words, as `_plain` has them."""

    words: str

    def stands_in(self, text: str) -> bool:
        stands = re.compile(rf"(?<![\w.]){re.escape(self.words)}(?!\w|\.\d)")
        return bool(stands.search(_plain(text)))

    def begins(self, text: str) -> bool:
        """Whether a text begins with them and no word follows: "Tom or Ann" tells nobody."""
        told = re.compile(rf"{re.escape(self.words)}(?!\w|\.\d|\s+\w)")
        return bool(told.match(_plain(text.partition("\n")[0])))


def _answer_of(reference: str) -> _Number | _Words | None:
    value = final_number(_folded(reference))
    if value is not None:
        return _Number(value)
    words = _plain(reference.rpartition(MARK)[2])
    return _Words(words) if words else None


def _tells(text: str, answer: _Number | _Words) -> bool:
    """Whether a text presents the answer as the answer."""
    return any(map(answer.begins, _told(text)))


def _told(text: str) -> Iterator[str]:
    """What stands behind each word or sign that presents an answer."""
    whole = _SPACE.sub("", _folded(text)).strip()
    last = _SENTENCE_END.split(whole)[-1]
    for where, sign in ((whole, _TELLING), (last, _EQUALS)):
        for found in sign.finditer(where):
            yield where[found.end() :]


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _plain(text: str) -> str:
    return _COMMA.sub("", " ".join(_folded(text).split())).strip(" .")
