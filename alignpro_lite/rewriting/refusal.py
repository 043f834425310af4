"""Which rewrites are never used, whatever their reward, and why."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import Literal

from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.rewriting.language import changed_language
from alignpro_lite.rewriting.spans import Protected, protect

RefusalKind = Literal["cancelled", "rambling", "empty", "span", "language"]

_SHOWN_OF_A_SPAN = 60
"""Characters of a lost span that a reason shows."""


@dataclass(frozen=True)
class Refusal:
    """Why a rewrite is not used.

    Attributes:
        kind: For counting.
        reason: One phrase about this rewrite.
    """

    kind: RefusalKind
    reason: str


def refusal_of(protected: Protected, rewrite: Rewrite) -> Refusal | None:
    """Why a rewrite may not be used; None if it may.

    Args:
        protected: The prompt and what a rewrite must keep.
        rewrite: x' and what the prompter wrote.
    """
    if rewrite.finish_reason == "cancelled":
        return Refusal("cancelled", "cancelled")
    if rewrite.finish_reason == "length":
        return Refusal("rambling", "the rewrite rambled past its limit")
    if not rewrite.output.strip():
        return Refusal("empty", "the rewrite was empty")
    if broken := protected.broken_by(rewrite.text):
        lost = shorten(broken[0].text, _SHOWN_OF_A_SPAN, placeholder="...")
        return Refusal("span", f"the rewrite did not keep {lost}")
    if change := changed_language(protected.bare, protect(rewrite.output).bare):
        return Refusal("language", f"the prompt is in {change[0]}, the rewrite in {change[1]}")
    return None
