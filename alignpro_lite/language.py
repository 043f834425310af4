"""Does a rewrite stay in the language of its prompt? By py3langid, which is numpy and one table."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SURE = 0.5
"""How likely a language must be before a text counts as written in it. Short texts, names and code
stay below, and are never refused."""
RULED_OUT = 0.05
"""How likely the language of the rewrite may be for the prompt while it still counts as another.
Near relatives, such as Egyptian and Standard Arabic, are never this unlikely."""


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
    if min(asked[ours], written[theirs]) < SURE or asked[theirs] >= RULED_OUT:
        return None
    return ours, theirs


def _probabilities(text: str) -> dict[str, float]:
    return dict(_identifier().rank(text))


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
