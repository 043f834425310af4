"""Rewriters that talk: what they wrote is no prompt but chatter, a refusal, a thought or an answer.

A sign of talk counts only where the prompt has none like it, nor its words: a prompt that begins
with "Sure! Here is" may be rewritten, who writes "help, I can't sleep" may be made to say "I can't
sleep.", and every prompt is a rewrite of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from alignpro_lite.rewriting.asking import asks, asks_as_known, only_states
from alignpro_lite.rewriting.scripts import LETTER, UNSPACED
from alignpro_lite.rewriting.signs import OPENINGS, SIGNS, TalkKind

_WORD = re.compile(f"[{UNSPACED}]|{LETTER}+")
_FEWEST_WORDS = 4
"""Different words that a prompt must have before a rewrite without any of them is another text."""
_FEWEST_TRIGRAMS = 2
"""Runs of three letters that words in other forms share: дыры and дыра."""
_APOSTROPHE = re.compile("['’]")
_OF_ONESELF = re.compile(r"^ (?:i am|im|i) (?=.)")
_END = "?.!？。！؟। "
_QUOTED: frozenset[TalkKind] = frozenset(("chatter", "declined", "thought"))
"""Kinds whose signs may be words of the prompt; "yes" and "no" are in many."""


@dataclass(frozen=True)
class Talk:
    """What a prompter wrote instead of a rewrite or a hint.

    Attributes:
        kind: `chatter` around a rewrite, a request that was `declined`, a `thought`, chat `markup`,
            or an `answer`.
        said: The words that show it.
    """

    kind: TalkKind
    said: str


def talk_in(prompt: str, output: str) -> Talk | None:
    """A sign of talk in what a prompter wrote; None if there is none."""
    for kind, sign, hit in _signs_in(output.strip()):
        if not sign.search(prompt) and not (kind in _QUOTED and _says(prompt, hit[0])):
            return Talk(kind, hit[0].strip())
    return None


def _signs_in(written: str) -> Iterator[tuple[TalkKind, re.Pattern[str], re.Match[str]]]:
    for kind, sign in OPENINGS:
        if hit := sign.match(written):
            yield kind, sign, hit
    for kind, sign in SIGNS:
        for hit in sign.finditer(written):
            yield kind, sign, hit


def _says(prompt: str, said: str) -> bool:
    """Whether a prompt has the words of a sign somewhere, with or without its I."""
    words = _OF_ONESELF.sub(" ", _in_plain_words(said))
    return len(words) > 2 and words in _in_plain_words(prompt)


def _in_plain_words(text: str) -> str:
    words = _WORD.findall(_APOSTROPHE.sub("", text).lower())
    return f" {' '.join(words)} "


def is_answer(prompt: str, rewrite: str) -> bool:
    """Whether a rewrite answers its prompt, or has nothing to do with it.

    It does if the prompt asks and the rewrite does not, if all that it adds to the prompt is a
    statement, or if it has no word of the prompt. Only the last is told in every language.
    """
    if asks_as_known(prompt):
        added = _behind(prompt, rewrite)
        if not asks(rewrite) or (added and only_states(added)):
            return True
    words = _words_of(prompt)
    return len(words) >= _FEWEST_WORDS and not _are_related(words, _words_of(rewrite))


def _behind(prompt: str, rewrite: str) -> str:
    """What a rewrite adds behind a prompt that it repeats, in small letters or not."""
    whole = prompt.strip().rstrip(_END)
    start, added = rewrite[: len(whole)], rewrite[len(whole) :]
    return added.lstrip(_END) if start.lower() == whole.lower() else ""


def _are_related(words: set[str], others: set[str]) -> bool:
    """Whether two texts share a word or, if one may be the other in few words, forms of words."""
    if not words.isdisjoint(others):
        return True
    shared = _trigrams(words) & _trigrams(others)
    return len(others) <= 2 * len(words) and len(shared) >= _FEWEST_TRIGRAMS


def _trigrams(words: set[str]) -> set[str]:
    return {word[place : place + 3] for word in words for place in range(len(word) - 2)}


def _words_of(text: str) -> set[str]:
    return {word.lower().replace("ё", "е") for word in _WORD.findall(text)}
