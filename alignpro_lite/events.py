"""Events: what happens to a request, in order, as `AlignedStream.events` tells it.

    Rewriting, Candidates ..., Rewritten, Reasoning ..., Text ..., Done

A prompt that goes out as it is has no `Rewriting` and no `Candidates`; a target that does not think
has no `Reasoning`. `Rewritten` comes again if the user then chose another prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.rewriting.candidates import Candidates
from alignpro_lite.rewriting.result import Choice, Result


@dataclass(frozen=True)
class Rewriting:
    """The prompter has begun."""


@dataclass(frozen=True)
class Rewritten:
    """Which prompt goes to the target is known; until the next event, `use` may replace it.

    Attributes:
        choice: The prompt in use, which may be the one that the user wrote.
    """

    choice: Choice


@dataclass(frozen=True)
class Reasoning:
    """The target has thought a little more.

    Attributes:
        text: A piece of the thought, without tags.
    """

    text: str


@dataclass(frozen=True)
class Text:
    """The answer has become longer.

    Attributes:
        text: A piece of it.
        log_probs: Of the tokens that the piece is made of, where they were asked for; a token may
            be held back, and come with the next piece.
    """

    text: str
    log_probs: tuple[TokenLogProb, ...] = ()


@dataclass(frozen=True)
class Done:
    """The last event, also of a request that was cancelled.

    Attributes:
        result: The whole answer.
    """

    result: Result


Event: TypeAlias = Rewriting | Candidates | Rewritten | Reasoning | Text | Done
