"""Does a rewrite give the answer away? Then what it earns is not the target's work."""

from __future__ import annotations

import re
import unicodedata

from alignpro_lite.reward.exchange import TaskReference

_MARK = "####"
_NUMBER_COMMA = re.compile(r"(?<=\d),(?=\d{3}\b)")


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
    """Whether the final answer stands in x' and not in x.

    The final answer is what follows the last `####` of a reference, as in GSM8K, or else all of it.
    It must stand there as whole words or numbers; case, white space and what separates thousands do
    not count.

    Args:
        prompt: x.
        sent: x'.
        reference: A right answer to x.
    """
    answer = _plain(reference.rpartition(_MARK)[2])
    if not answer:
        return False
    stands = re.compile(rf"(?<![\w.]){re.escape(answer)}(?!\w|\.\d)")
    return bool(stands.search(_plain(sent))) and not stands.search(_plain(prompt))


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _NUMBER_COMMA.sub("", " ".join(folded.split())).strip(" .")
