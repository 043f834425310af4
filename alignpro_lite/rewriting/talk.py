"""Rewriters that talk: what they wrote is no prompt but chatter, a refusal, a thought or an answer.

A sign of talk counts only where the prompt has none like it: a prompt that begins with "Sure! Here
is" may be rewritten, and every prompt is a rewrite of itself. Nor do the prompt's own words count:
"help, I can't sleep" may become "I can't sleep. Why?".
"""

from __future__ import annotations

import re
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
_PUNCTUATION = _END + ",:;-–—…，：；、،\n"


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
    written = output.strip()
    if opening := _opening_in(prompt, written):
        return opening
    for kind, sign in SIGNS:
        hit = sign.search(written)
        if hit and not sign.search(prompt):
            return Talk(kind, hit[0].strip())
    return None


def _opening_in(prompt: str, written: str) -> Talk | None:
    """A sign that begins a text, or follows words of the prompt that begin it like one."""
    signs = [(kind, sign) for kind, sign in OPENINGS if not sign.search(prompt)]
    while hits := [(kind, hit) for kind, sign in signs if (hit := sign.match(written))]:
        for kind, hit in hits:
            if kind == "answer" or not _says(prompt, hit[0]):  # "yes" and "no" are in many prompts
                return Talk(kind, hit[0].strip())
        written = written[max(hit.end() for _, hit in hits) :].lstrip(_PUNCTUATION)
    return None


def _says(prompt: str, said: str) -> bool:
    """Whether a prompt has the words of a sign, with or without its I; a single one begins it."""
    words, asked = _OF_ONESELF.sub(" ", _in_plain_words(said)), _in_plain_words(prompt)
    count = len(words.split())
    return words in asked if count > 1 else count == 1 and asked.startswith(words)


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
