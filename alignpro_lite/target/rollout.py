"""The frozen target as training and evaluation see it, and the deployed GGUF in that place.

The other two kinds are an endpoint (`openai.py`) and a model in torch (`torch_target.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypeAlias, TypeVar

from msgspec import Meta, structs

from alignpro_lite.decoding.conversation import Message, check_prompt
from alignpro_lite.decoding.reasoning import Reply
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.decoding.thinking import Thinking
from alignpro_lite.errors import AlignProError, DeviceError, InputError
from alignpro_lite.registry.record import Count, Record
from alignpro_lite.target.answer_stream import AnswerStream
from alignpro_lite.target.choices import Chooser
from alignpro_lite.target.question import DEFAULT_SAMPLING, Question
from alignpro_lite.target.target import LlamaTarget

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Answer:
    """One sampled answer y.

    Attributes:
        text: What the target said, without what it thought before.
        tokens: How many tokens it drew, those of its thought and the stop token included; None
            where an endpoint does not say.
        finish_reason: `stop` if it ended by itself, `length` if it was cut, or whatever else
            an endpoint calls it.
    """

    text: str
    tokens: int | None
    finish_reason: str


@dataclass(frozen=True)
class TargetFailure:
    """The reason why there is no answer.

    Attributes:
        reason: One sentence for the log.
    """

    reason: str


AnswerOrFailure: TypeAlias = Answer | TargetFailure


class AnswerPlan(Record):
    """[answers]: how the target is asked; the defaults are those of `run`.

    Attributes:
        count: M, answers to each rewrite.
        max_tokens: The most tokens of an answer, its thought included.
        temperature: 0 takes the most likely token.
        top_k: Only that many of the likeliest tokens are drawn; 0 for all.
        top_p: Only the likeliest tokens that together have this probability are drawn.
        min_p: Tokens below this share of the likeliest one's probability are not drawn.
        thinking: Whether a target that can think does so before it answers, `on` or `off`; left
            out, its chat template decides. An answer that is still a thought at max_tokens counts
            as none.
    """

    count: Count = 1
    max_tokens: Count = 128
    temperature: Annotated[float, Meta(ge=0, le=100)] = DEFAULT_SAMPLING.temperature
    top_k: Annotated[int, Meta(ge=0)] = DEFAULT_SAMPLING.top_k
    top_p: Annotated[float, Meta(gt=0, le=1)] = DEFAULT_SAMPLING.top_p
    min_p: Annotated[float, Meta(ge=0, lt=1)] = DEFAULT_SAMPLING.min_p
    thinking: Literal["on", "off"] | None = None

    @property
    def switch(self) -> Thinking:
        """Where the switch for thinking stands."""
        return self.thinking or "auto"

    def seeded(self, seed: int) -> Sampling:
        """How tokens are drawn with a seed."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.min_p, seed)

    def with_count(self, count: int) -> AnswerPlan:
        """The same plan with another number of answers."""
        return structs.replace(self, count=count)


class Target(Protocol):
    """A frozen target that answers many conversations together."""

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seeds: Sequence[int]
    ) -> list[list[AnswerOrFailure]]:
        """Sample answers; the same call gets the same ones.

        Args:
            conversations: What to answer.
            plan: How many answers to each, how long, and how their tokens are drawn.
            seeds: Of the answers to each conversation.

        Returns:
            For each conversation in order, `plan.count` answers or the failures in their place.

        Raises:
            AlignProError: Nothing can be answered at all, now or later.
        """

    def close(self) -> None:
        """Free what the target holds."""


def answer_each(
    conversations: Sequence[Sequence[Message]],
    count: int,
    prepare: Callable[[int, Sequence[Message]], Prepared],
    answer: Callable[[list[Prepared]], Iterable[list[AnswerOrFailure]]],
) -> list[list[AnswerOrFailure]]:
    """Answer the conversations that can be asked; the others get their failure `count` times.

    Args:
        conversations: What to answer.
        count: Answers to each.
        prepare: Turns a conversation, with its number, into a request. An error of a single
            conversation becomes its failure; a DeviceError concerns them all and is raised.
        answer: Answers all requests, in order.
    """
    prepared = [
        _prepared(number, messages, prepare) for number, messages in enumerate(conversations)
    ]
    answered = iter(answer([found for found in prepared if not isinstance(found, TargetFailure)]))
    return [
        [found] * count if isinstance(found, TargetFailure) else next(answered)
        for found in prepared
    ]


def _prepared(
    number: int,
    messages: Sequence[Message],
    prepare: Callable[[int, Sequence[Message]], Prepared],
) -> Prepared | TargetFailure:
    try:
        if not messages:
            raise InputError(
                "A conversation needs a message, found none.", "Pass a user's message."
            )
        for message in messages:
            check_prompt(message.content)
        return prepare(number, messages)
    except DeviceError:
        raise
    except AlignProError as error:
        return TargetFailure(error.problem)


class GgufTarget:
    """The deployed GGUF; all conversations are decoded together, as its rows allow.

    Attributes:
        llama: The loaded target.
    """

    def __init__(self, target: LlamaTarget) -> None:
        """Take over a loaded target; `close` closes it."""
        self.llama = target

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seeds: Sequence[int]
    ) -> list[list[AnswerOrFailure]]:
        """Sample answers; see `Target.answers`.

        Raises:
            DeviceError: The engine crashed, or was closed before.
            CancelledError: The target was closed meanwhile.
        """

        def question(number: int, messages: Sequence[Message]) -> Question:
            sampling = plan.seeded(seeds[number])
            asked = Question(
                messages,
                plan.max_tokens,
                sampling,
                count=plan.count,
                thinking=plan.switch,
            )
            self.llama.require_room(asked)
            return asked

        return answer_each(conversations, plan.count, question, self._answers)

    def _answers(self, questions: list[Question]) -> list[list[AnswerOrFailure]]:
        if not questions:
            return []
        # Together and afresh: which sequences share a batch, and so every rounding, depends on
        # this call alone.
        started = self.llama.answer_together(questions, fresh=True)
        try:
            return [[_answer(stream) for stream in streams] for streams in started]
        finally:
            for stream in (stream for streams in started for stream in streams):
                stream.cancel()

    def close(self) -> None:
        """Close the target."""
        self.llama.close()


def chooser_of(target: Target) -> Chooser | None:
    """What compares answers with the weights of a target; None where they are not loaded here."""
    loaded = target.llama if isinstance(target, GgufTarget) else target
    return loaded if isinstance(loaded, Chooser) else None


def _answer(stream: AnswerStream) -> AnswerOrFailure:
    text = "".join(stream)
    reply = Reply(stream.reasoning, text, stream.thought_only)
    return answer_of(reply, stream.token_count, stream.finish_reason or "cancelled")


def answer_of(reply: Reply, tokens: int | None, finish_reason: str) -> AnswerOrFailure:
    """The answer of a reply; a thought that did not come to one is a failure."""
    if reply.thought_only:
        return TargetFailure(
            f"the target was still thinking after {tokens or 'all of its'} tokens; raise "
            'answers.max_tokens, or set answers.thinking = "off"'
        )
    return Answer(reply.text, tokens, finish_reason)
