"""The frozen target as training and evaluation see it, and the deployed GGUF in that place.

The other two kinds are an endpoint (`upstream.py`) and a model in torch (`train/hf_target.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

from alignpro_lite.decoding.conversation import Message, check_prompt
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.errors import AlignProError, DeviceError, InputError
from alignpro_lite.target.target import AnswerStream, LlamaTarget, Question


@dataclass(frozen=True)
class Answer:
    """One sampled answer y.

    Attributes:
        text: What the target said.
        tokens: How many tokens it drew, the stop token included; None where an endpoint does
            not say.
        finish_reason: `stop` if it ended by itself, `length` if it was cut, or whatever else
            an endpoint calls it.
    """

    text: str
    tokens: int | None
    finish_reason: str


@dataclass(frozen=True)
class TargetFailure:
    """An answer that could not be had.

    Attributes:
        reason: One sentence for the log.
    """

    reason: str


Outcome: TypeAlias = Answer | TargetFailure


@dataclass(frozen=True)
class AnswerPlan:
    """How the target is asked.

    Attributes:
        count: Answers to each prompt (or, in training, to each rewrite).
        max_tokens: The most tokens of an answer.
        sampling: How answers are drawn; the seed is set for each use.
    """

    count: int
    max_tokens: int
    sampling: Sampling

    def seeded(self, seed: int) -> Sampling:
        """The sampling with another seed."""
        return replace(self.sampling, seed=seed)


class Target(Protocol):
    """A frozen target that answers many conversations together."""

    def answers(
        self,
        conversations: Sequence[Sequence[Message]],
        count: int,
        max_tokens: int,
        sampling: Sampling,
    ) -> list[list[Outcome]]:
        """Sample answers; equal conversations get different ones, the same call the same ones.

        Args:
            conversations: What to answer.
            count: Answers to each conversation.
            max_tokens: The most tokens of each answer.
            sampling: How tokens are drawn.

        Returns:
            For each conversation in order, `count` answers or the failures in their place.

        Raises:
            AlignProError: Nothing can be answered at all, now or later.
        """

    def close(self) -> None:
        """Give back what the target holds."""


def check_conversation(messages: Sequence[Message]) -> None:
    """Refuse a conversation that no target can read.

    Raises:
        InputError: There is no message, or one is empty or not text.
    """
    if not messages:
        raise InputError("A conversation needs a message, found none.", "Pass a user's message.")
    for message in messages:
        check_prompt(message.content)


class GgufTarget:
    """The deployed GGUF; all conversations are decoded in one batch, as its rows allow."""

    def __init__(self, target: LlamaTarget) -> None:
        """Take over a loaded target; `close` closes it."""
        self._target = target

    def answers(
        self,
        conversations: Sequence[Sequence[Message]],
        count: int,
        max_tokens: int,
        sampling: Sampling,
    ) -> list[list[Outcome]]:
        """Sample answers; see `Target.answers`.

        Raises:
            InputError: The target was loaded for fewer sequences than `count`.
            DeviceError: The engine crashed, or was closed before.
            CancelledError: The target was closed meanwhile.
        """
        rows = self._target.settings.sequences
        if count > rows:
            raise InputError(
                f"{count} answers to each conversation were asked of a target that decodes "
                f"{rows} sequences together.",
                f"Ask for at most {rows} answers, or load it with more sequences.",
            )
        asked: list[Question | TargetFailure] = [
            self._question(
                messages,
                count,
                max_tokens,
                replace(sampling, seed=stream_seed(sampling.seed, number)),
            )
            for number, messages in enumerate(conversations)
        ]
        questions = [one for one in asked if isinstance(one, Question)]
        # Together and afresh: which sequences lie beside each other, and with it every rounding,
        # then hangs on this call alone.
        started = self._target.answer_together(questions, fresh=True) if questions else []
        try:
            given: Iterator[list[Outcome]] = iter(
                [[_answer(stream) for stream in streams] for streams in started]
            )
        finally:
            for stream in (stream for streams in started for stream in streams):
                stream.cancel()
        return [[one] * count if isinstance(one, TargetFailure) else next(given) for one in asked]

    def _question(
        self, messages: Sequence[Message], count: int, max_tokens: int, sampling: Sampling
    ) -> Question | TargetFailure:
        """A conversation as a question; what is wrong with it alone becomes its failure."""
        try:
            check_conversation(messages)
            question = Question(messages, max_tokens, sampling, count=count)
            self._target.require_room(question)
        except DeviceError:
            raise
        except AlignProError as error:
            return TargetFailure(error.problem)
        return question

    def close(self) -> None:
        """Close the target."""
        self._target.close()


def _answer(stream: AnswerStream) -> Answer:
    text = "".join(stream)
    return Answer(text, stream.token_count, stream.finish_reason or "cancelled")
