"""Which rewrites are never used, whatever their reward, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.rewriting.language import changed_language
from alignpro_lite.rewriting.signs import TalkKind
from alignpro_lite.rewriting.spans import Protected, protect
from alignpro_lite.rewriting.talk import is_answer, talk_in

RefusalKind = Literal["cancelled", "rambling", "empty", "span", "language"] | TalkKind

_SHOWN = 60
"""Characters of a lost span, or of what was said instead, that a reason shows."""
_TALKED: dict[TalkKind, str] = {
    "chatter": "the prompter talked about the rewrite",
    "declined": "the prompter declined to rewrite",
    "thought": "the prompter thought aloud",
    "markup": "the rewrite has chat markup",
    "answer": "the prompter answered instead of rewriting",
}


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
    """Why a rewrite may not be used; None if it may, as x itself always may.

    Args:
        protected: The prompt and what a rewrite must keep.
        rewrite: x' and what the prompter wrote.
    """
    if rewrite.finish_reason == "cancelled":
        return Refusal("cancelled", "cancelled")
    if rewrite.thought_only:
        return Refusal("thought", "the prompter thought and came to no rewrite")
    if rewrite.finish_reason == "length":
        return Refusal("rambling", "the rewrite rambled past its limit")
    if rewrite.text == protected.prompt:
        return None
    if not rewrite.text.strip():
        return Refusal("empty", "the rewrite was empty")
    if talk := talk_in(protected.prompt, rewrite.output):
        return Refusal(talk.kind, f"{_TALKED[talk.kind]}: {_shown(talk.said)}")
    if change := changed_language(protected.bare, protect(rewrite.output).bare):
        return Refusal("language", f"the prompt is in {change[0]}, the rewrite in {change[1]}")
    if broken := protected.broken_by(rewrite.text):
        return Refusal("span", f"the rewrite did not keep {_shown(broken[0].text)}")
    if is_answer(protected.prompt, rewrite.text):
        return Refusal("answer", f"{_TALKED['answer']}: {_shown(rewrite.output)}")
    return None


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 3]}..."
