"""The log-probability of a token of an answer, with the tokens that might have been there."""

from __future__ import annotations

from dataclasses import dataclass

from alignpro_lite.errors import InputError

MOST_ALTERNATIVES = 20
"""As many as OpenAI's protocol can ask for."""


def require_alternatives(count: int | None) -> None:
    """Refuse a number of alternatives that is not listed.

    Raises:
        InputError: Names the number and the range.
    """
    if count is not None and not 0 <= count <= MOST_ALTERNATIVES:
        raise InputError(
            f"log_probs must be 0 to {MOST_ALTERNATIVES} alternatives, or None, found {count}.",
            "Ask for fewer.",
        )


@dataclass(frozen=True)
class TokenLogProb:
    """A token and how likely it was.

    Attributes:
        token: Its id.
        piece: Its bytes, which may begin or end inside a character.
        log_prob: Natural log of its probability under the model at temperature 1, before any
            constraint, penalty or filter.
        alternatives: The most likely tokens there, best first, without alternatives of their own.
    """

    token: int
    piece: bytes
    log_prob: float
    alternatives: tuple[TokenLogProb, ...] = ()

    @property
    def text(self) -> str:
        """Its bytes as text; half a character is shown as �."""
        return self.piece.decode("utf-8", errors="replace")
