"""What a caller gets: the prompt in use, the answer, and how long both took."""

from __future__ import annotations

from dataclasses import dataclass

from alignpro_lite.decoding.engine import FinishReason
from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.rewriting.certificate import Certificate
from alignpro_lite.rewriting.trials import Trial


@dataclass(frozen=True)
class Choice:
    """Which prompt goes to the target, and why.

    Attributes:
        prompt: x, the user's own, without `<keep>` markers.
        sent: What the target gets: x' or x unchanged.
        rewrite: The rewrite that was drawn, used or not; None if none was drawn.
        certificate: How it was chosen.
        answer: The best trial answer to `sent`; None if there is none.
    """

    prompt: str
    sent: str
    rewrite: Rewrite | None
    certificate: Certificate
    answer: Trial | None = None

    @property
    def reason(self) -> str:
        """Why the rewrite is used or not, one phrase."""
        return self.certificate.reason

    @property
    def changed(self) -> bool:
        """Whether the target gets something other than what the user wrote."""
        return self.sent != self.prompt


@dataclass(frozen=True)
class Timings:
    """Wall-clock seconds from the start of the request."""

    rewrite: float
    first_token: float
    total: float


@dataclass(frozen=True)
class Result:
    """A finished answer.

    Attributes:
        choice: The prompt and its rewrite.
        answer: y, the target's text.
        reasoning: What the target thought before it, without tags; empty if it did not think.
        thought_only: Whether the target thought and did not come to an answer.
        finish_reason: `stop`, `length` (cut at max_tokens) or `cancelled`.
        answer_tokens: Tokens of thought and answer, the stop token included.
        timings: How long it took.
        log_probs: Of the tokens of `answer`, in order, if they were asked for.
        prompt_tokens: Tokens of the conversation that the target read.
    """

    choice: Choice
    answer: str
    reasoning: str
    thought_only: bool
    finish_reason: FinishReason
    answer_tokens: int
    timings: Timings
    log_probs: tuple[TokenLogProb, ...] = ()
    prompt_tokens: int = 0

    @property
    def certificate(self) -> Certificate:
        """How the prompt was chosen."""
        return self.choice.certificate
