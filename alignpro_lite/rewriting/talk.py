"""Rewriters that talk: what they wrote is no prompt but chatter, a refusal, a thought or an answer.

A sign of talk counts only where the prompt has none like it: a prompt that begins with "Sure! Here
is" may be rewritten, and every prompt is a rewrite of itself.
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
    found = [(kind, sign, sign.match(written)) for kind, sign in OPENINGS]
    found += [(kind, sign, sign.search(written)) for kind, sign in SIGNS]
    for kind, sign, hit in found:
        if hit and not sign.search(prompt):
            return Talk(kind, hit[0].strip())
    return None


def is_answer(prompt: str, rewrite: str) -> bool:
    """Whether a rewrite answers its prompt, or has nothing to do with it.

    It does if the prompt asks and the rewrite does not, if all that it adds to the prompt is a
    statement, or if it has no word of the prompt. Only the last is told in every language.
    """
    if asks_as_known(prompt):
        added = rewrite.removeprefix(prompt.strip())
        if not asks(rewrite) or (added != rewrite and only_states(added)):
            return True
    words = _words_of(prompt)
    return len(words) >= _FEWEST_WORDS and words.isdisjoint(_words_of(rewrite))


def _words_of(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}
