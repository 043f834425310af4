"""From a client's body to what the library is asked."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal, TypeVar

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.penalties import Penalties
from alignpro_lite.decoding.sampling import MAX_SEED, Sampling
from alignpro_lite.decoding.thinking import Thinking
from alignpro_lite.rewriting.request import Budget, Request, RhoStar
from alignpro_lite.serve.body import (
    AlignFields,
    ChatBody,
    ChatTurn,
    CommonBody,
    CompletionBody,
    wrapped_seed,
)
from alignpro_lite.serve.problems import HttpProblem

T = TypeVar("T")

_INSTRUCTIONS = ("system", "developer")


@dataclass(frozen=True)
class Usual:
    """What holds where a client sets nothing.

    Attributes:
        request: How prompts are rewritten and answered.
        repeats: Whether its seed is everyone's; otherwise each request gets a new one.
    """

    request: Request
    repeats: bool = False

    def at(self, temperature: object) -> Request:
        """What holds where a client sets this temperature, or none.

        Who asks for temperature 0 expects the same answer again: so the rewrite, which is drawn all
        the same, must repeat too.
        """
        if self.repeats or temperature == 0:
            return self.request
        return self.request.with_seed(secrets.randbelow(MAX_SEED))


@dataclass(frozen=True)
class Asked:
    """What one request wants.

    Attributes:
        prompt: The last thing that the user said.
        request: How it is rewritten and answered.
        count: How many answers.
        align: How the prompt is rewritten.
        is_stream: Whether the answer comes in pieces.
        include_usage: Whether a stream ends with the number of tokens.
    """

    prompt: str
    request: Request
    count: int
    align: AlignFields
    is_stream: bool
    include_usage: bool


def asked_in_chat(body: ChatBody, usual: Request) -> Asked:
    """What a conversation asks.

    Args:
        body: The client's.
        usual: What holds where the client sets nothing.

    Raises:
        HttpProblem: The conversation does not end with the user.
        InputError: A setting cannot be used.
    """
    *before, last = body.messages
    if last.role != "user":
        raise HttpProblem(
            400,
            f"The last message must be the user's, found one of the {last.role}.",
            param=f"messages[{len(before)}].role",
        )
    told = list(takewhile(lambda turn: turn.role in _INSTRUCTIONS, before))
    request = replace(
        _request(body, usual),
        system="\n\n".join(turn.text for turn in told) or usual.system,
        history=tuple(_message(turn) for turn in before[len(told) :]),
        thinking=_thinking(body, usual.thinking),
        log_probs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    if body.max_completion_tokens is not None:
        request = replace(request, max_tokens=body.max_completion_tokens)
    return _asked(body, last.text, request)


def asked_in_completion(body: CompletionBody, usual: Request) -> Asked:
    """What a bare prompt asks: it is the only message of a conversation.

    Raises:
        InputError: A setting cannot be used.
    """
    (prompt,) = (body.prompt,) if isinstance(body.prompt, str) else body.prompt
    request = replace(_request(body, usual), log_probs=body.logprobs)
    return _asked(body, prompt, request)


def _asked(body: CommonBody, prompt: str, request: Request) -> Asked:
    options = body.stream_options
    return Asked(
        prompt=prompt,
        request=request,
        count=body.n,
        align=body.alignpro,
        is_stream=body.stream,
        include_usage=options is not None and options.include_usage,
    )


def _request(body: CommonBody, usual: Request) -> Request:
    return replace(
        usual,
        max_tokens=body.max_tokens or usual.max_tokens,
        rewrite=body.alignpro.mode,
        stop=body.stops or usual.stop,
        sampling=_sampling(body, usual.sampling),
        rho_star=rho_star(body.alignpro, usual.rho_star),
        penalties=_penalties(body, usual.penalties),
        constraint=body.constraint,
    )


def _sampling(body: CommonBody, usual: Sampling) -> Sampling:
    return replace(
        usual,
        temperature=_given(body.temperature, usual.temperature),
        top_p=_given(body.top_p, usual.top_p),
        top_k=_given(body.top_k, usual.top_k),
        min_p=_given(body.min_p, usual.min_p),
        seed=usual.seed if body.seed is None else wrapped_seed(body.seed),
    )


def _penalties(body: CommonBody, usual: Penalties) -> Penalties:
    return replace(
        usual,
        presence=_given(body.presence_penalty, usual.presence),
        frequency=_given(body.frequency_penalty, usual.frequency),
        repeat=_given(body.repeat_penalty, usual.repeat),
        bias=tuple((int(token), bias) for token, bias in body.logit_bias.items()),
    )


def _given(said: T | None, usual: T) -> T:
    """What a client says, 0 too, else what is usual."""
    return usual if said is None else said


def rho_star(align: AlignFields, usual: RhoStar) -> RhoStar:
    """How a rewrite is chosen: as the client says, and as usual where it says nothing."""
    return replace(
        usual,
        samples=align.samples or usual.samples,
        strength=align.strength or usual.strength,
        answers=align.answers or usual.answers,
        guard=align.guard or usual.guard,
        returns=align.returns or usual.returns,
        budget=Budget(
            align.budget_tokens or usual.budget.tokens,
            align.budget_seconds or usual.budget.seconds,
        ),
    )


def require_effect(align: AlignFields, *, has_reward: bool) -> None:
    """Refuse what a client sets and nothing would heed.

    Args:
        align: What it sets.
        has_reward: Whether a reward is loaded.

    Raises:
        HttpProblem: A field needs a reward, and there is none, or the client wants none.
    """
    name = align.of_a_reward
    if name is not None and not (has_reward and align.reward):
        why = "alignpro.reward is false" if has_reward else "this server was started without one"
        raise HttpProblem(
            400,
            f"alignpro.{name} needs a reward, and {why}. Leave it out.",
            param=f"alignpro.{name}",
        )


def _thinking(body: ChatBody, usual: Thinking) -> Thinking:
    match body.reasoning_effort:
        case None:
            return usual
        case "none":
            return "off"
    return "on"


def _message(turn: ChatTurn) -> Message:
    role: Literal["system", "user", "assistant"] = (
        "system" if turn.role == "developer" else turn.role
    )
    return Message(role, turn.text, turn.reasoning_content)
