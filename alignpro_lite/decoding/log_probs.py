"""The log-probability of a token of an answer, with the tokens that might have been there."""

from __future__ import annotations

from dataclasses import dataclass

MOST_ALTERNATIVES = 20
"""As many as OpenAI's protocol can ask for."""


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
