"""A question to the target: a conversation, and how it is to be answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alignpro_lite.decoding.constraint import Constraint
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.penalties import NO_PENALTIES, Penalties
from alignpro_lite.decoding.sampling import Draw, Sampling
from alignpro_lite.decoding.thinking import Thinking

DEFAULT_SAMPLING = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
"""llama.cpp's own defaults for chat."""


@dataclass(frozen=True)
class Question:
    """A conversation and how it is to be answered.

    Attributes:
        messages: The conversation.
        max_tokens: The most tokens of each answer, its thought included.
        sampling: How tokens are drawn.
        stop: Strings that end an answer and are not part of it; in a thought they are text.
        count: How many answers; each has its own random stream.
        first: The number of the first answer's random stream.
        begun: The tokens that every answer begins with, as they were drawn; decoding continues
            after them.
        thinking: Whether the model thinks first.
        penalties: What makes tokens more or less likely than the model has them.
        constraint: What the answer, without the thought, must be; None for any text.
        log_probs: How many alternatives to each token are listed, 0 to 20; None to list nothing.
    """

    messages: Sequence[Message]
    max_tokens: int
    sampling: Sampling = DEFAULT_SAMPLING
    stop: Sequence[str] = ()
    count: int = 1
    first: int = 0
    begun: tuple[Draw, ...] = ()
    thinking: Thinking = "auto"
    penalties: Penalties = NO_PENALTIES
    constraint: Constraint | None = None
    log_probs: int | None = None

    @property
    def begun_tokens(self) -> list[int]:
        """Ids of the tokens that every answer begins with."""
        return [draw.token for draw in self.begun]
