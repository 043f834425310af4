"""What clients may send: the bodies of OpenAI's API as far as they are supported.

A field that is not supported is refused with a sentence, unless its value asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from alignpro_lite.decoding.constraint import ANY_JSON_OBJECT, Constraint, Gbnf, JsonSchema
from alignpro_lite.decoding.log_probs import MOST_ALTERNATIVES
from alignpro_lite.decoding.sampling import MAX_SEED
from alignpro_lite.errors import InputError
from alignpro_lite.registry.record import (
    MAX_NESTING,
    Count,
    NonEmpty,
    Origin,
    Positive,
    Record,
    is_nested_deeper,
    parse,
)
from alignpro_lite.rewriting.pool import MOST_SAMPLES
from alignpro_lite.rewriting.request import Guard, Returns
from alignpro_lite.serve.problems import HttpProblem

MOST_MESSAGES = 1000
MOST_CHOICES = 16
_TOO_DEEP = f"A request may be nested {MAX_NESTING} deep, and this one is deeper."

BodyT = TypeVar("BodyT", bound="CommonBody")
TopP = Annotated[float, msgspec.Meta(gt=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
TokenName = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,8})\Z")]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
Stops = NonEmpty | Annotated[tuple[NonEmpty, ...], msgspec.Meta(max_length=16)]


class TextPart(Record):
    """A piece of a message."""

    type: Literal["text"]
    text: str


class ChatTurn(Record):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[TextPart, ...]
    reasoning_content: str = ""

    @property
    def text(self) -> str:
        """What is said, whatever its form."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(Record):
    """What a stream tells beside the answer."""

    include_usage: bool = False
    include_obfuscation: bool = False


class AnyText(Record, tag_field="type", tag="text"):
    """An answer of any form."""


class JsonObject(Record, tag_field="type", tag="json_object"):
    """An answer that is a JSON object."""


class NamedSchema(Record):
    """A JSON Schema; its name and description are for clients alone."""

    name: NonEmpty
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class JsonOfSchema(Record, tag_field="type", tag="json_schema"):
    """An answer that is valid under a schema."""

    json_schema: NamedSchema


ResponseFormat = AnyText | JsonObject | JsonOfSchema


class AlignFields(Record):
    """The field `alignpro`: how the prompt is rewritten. What is left out is up to the server.

    Attributes:
        mode: `on` and `off` rewrite or do not; `auto` leaves prompts for structured output alone.
        rewrite: What the target gets instead, as a user edited it; nothing is drawn then.
        samples: Rewrites to choose from.
        strength: λ.
        answers: Trial answers to each rewrite.
        guard: When a rewrite is used.
        budget_tokens: Tokens of the target that the choice may cost.
        budget_seconds: Time that it may take.
        returns: Whether the best trial answer is continued, or a fresh one drawn.
        reward: False chooses without the reward that the server has loaded.
        progress: Whether a stream also tells when the rewrite is drawn.
    """

    mode: Literal["auto", "on", "off"] = "auto"
    rewrite: NonEmpty | None = None
    samples: Annotated[int, msgspec.Meta(ge=1, le=MOST_SAMPLES)] | Literal["auto"] | None = None
    strength: Positive | None = None
    answers: Annotated[int, msgspec.Meta(ge=1, le=MOST_SAMPLES)] | None = None
    guard: Guard | None = None
    budget_tokens: Count | None = None
    budget_seconds: Positive | None = None
    returns: Returns | None = None
    reward: bool = True
    progress: bool = False

    @property
    def of_a_reward(self) -> str | None:
        """The first field that only a choice by a reward heeds; None if none is set."""
        heeded = {
            "samples": self.samples == "auto",
            "strength": self.strength,
            "answers": self.answers,
            "guard": self.guard,
            "budget_tokens": self.budget_tokens,
            "budget_seconds": self.budget_seconds,
            "returns": self.returns,
        }
        return next((name for name, value in heeded.items() if value), None)


class CommonBody(Record, kw_only=True):
    """What both kinds of completions have in common."""

    model: str
    max_tokens: Count | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, lt=1)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MOST_CHOICES)] = 1
    seed: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Stops = ()
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: Annotated[float, msgspec.Meta(gt=0, le=100)] | None = None
    logit_bias: dict[TokenName, Bias] = msgspec.field(default_factory=dict)
    grammar: NonEmpty | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    alignpro: AlignFields = AlignFields()

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            InputError: `stream_options` without a stream.
        """
        if self.stream_options is not None and not self.stream:
            raise InputError(
                "stream_options is for streams, and stream is not true.", "Leave it out."
            )

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop

    @property
    def constraint(self) -> Constraint | None:
        """What an answer must be."""
        return Gbnf(self.grammar) if self.grammar else None


class ChatBody(CommonBody, kw_only=True):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[tuple[ChatTurn, ...], msgspec.Meta(min_length=1, max_length=MOST_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None
    response_format: ResponseFormat = AnyText()
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )

    def __post_init__(self) -> None:
        """Refuse what contradicts itself.

        Raises:
            InputError: There are two limits, or see `CommonBody`.
        """
        super().__post_init__()
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InputError(
                "max_tokens and max_completion_tokens mean the same, found both.",
                "Send one of them.",
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise InputError("top_logprobs needs logprobs, which is not true.", "Set both.")
        if self.grammar is not None and not isinstance(self.response_format, AnyText):
            raise InputError(
                "grammar and response_format both say what an answer must be.", "Send one of them."
            )

    @property
    def constraint(self) -> Constraint | None:
        """What an answer must be."""
        match self.response_format:
            case JsonObject():
                return ANY_JSON_OBJECT
            case JsonOfSchema(json_schema=named):
                return JsonSchema(named.schema)
        return super().constraint


class CompletionBody(CommonBody, kw_only=True):
    """The body of POST /v1/completions."""

    # A list of one, written as one of any length: msgspec 0.22 crashes on `str | tuple[str]`.
    prompt: NonEmpty | Annotated[tuple[NonEmpty, ...], msgspec.Meta(min_length=1, max_length=1)]
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MOST_ALTERNATIVES)] | None = None


@dataclass(frozen=True)
class _Unsupported:
    """A field of OpenAI's API that is refused.

    Attributes:
        why: One sentence.
        neutral: Values that ask for nothing, and are let through.
    """

    why: str
    neutral: tuple[Any, ...] = ()


_TOOLS = "Tools are not supported: neither model was trained to call them."
_UNSUPPORTED: Mapping[str, _Unsupported] = {
    "tools": _Unsupported(_TOOLS, ([],)),
    "tool_choice": _Unsupported(_TOOLS, ("none",)),
    "parallel_tool_calls": _Unsupported(_TOOLS, (False,)),
    "functions": _Unsupported(_TOOLS, ([],)),
    "function_call": _Unsupported(_TOOLS, ("none",)),
    "audio": _Unsupported("Audio is not supported."),
    "modalities": _Unsupported("Only text is supported.", (["text"],)),
    "prediction": _Unsupported("Predicted outputs are not supported."),
    "web_search_options": _Unsupported("Web search is not supported: the server is offline."),
    "moderation": _Unsupported("Moderation is not supported."),
    "verbosity": _Unsupported("The verbosity of a model cannot be set.", ("medium",)),
    "store": _Unsupported("Nothing is stored.", (False,)),
    "suffix": _Unsupported("Filling in before a suffix is not supported.", ("",)),
    "echo": _Unsupported("A prompt is not repeated.", (False,)),
    "best_of": _Unsupported("best_of is not supported; use alignpro.samples.", (1,)),
}
_NO_EFFECT = frozenset(
    (
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
    )
)
"""Fields for OpenAI's own bookkeeping: they say nothing about the answer."""
_OF_MESSAGES: Mapping[str, _Unsupported] = {
    "tool_calls": _Unsupported(_TOOLS, ([],)),
    "function_call": _Unsupported(_TOOLS),
    "tool_call_id": _Unsupported(_TOOLS),
    "audio": _Unsupported("Audio is not supported."),
    "refusal": _Unsupported("Refusals are messages like others here: put them into content."),
    "annotations": _Unsupported("Annotations are not supported.", ([],)),
    "name": _Unsupported("Names of speakers are not supported: chat templates drop them."),
}
_OF_PARTS = "Only text is supported, no images, audio or files."
REQUEST = Origin(Path("The request"), InputError)
"""What errors call the place of a wrong value."""


def wrapped_seed(seed: int) -> int:
    """A seed in the range of the samplers; OpenAI's is wider, and clients use that."""
    return seed % (MAX_SEED + 1)


def read_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        HttpProblem: It is something else.
    """
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpProblem(400, f"The request is not valid JSON: {error}.") from error
    except RecursionError as error:
        raise HttpProblem(400, _TOO_DEEP) from error
    if is_nested_deeper(found, MAX_NESTING):
        raise HttpProblem(400, _TOO_DEEP)
    if not isinstance(found, dict):
        raise HttpProblem(400, f"A request must be a JSON object, found {found!r:.40}.")
    return found


def read_request(kind: type[BodyT], raw: bytes) -> BodyT:
    """Parse a body and refuse what is not supported in it.

    Raises:
        HttpProblem: It is not JSON, or asks for what is not supported.
        InputError: A key is missing or unknown, or a value has another type or range.
    """
    asked = _without_nothing(read_object(raw), _UNSUPPORTED, "")
    asked = {name: value for name, value in asked.items() if name not in _NO_EFFECT}
    if isinstance(turns := asked.get("messages"), list):
        asked["messages"] = [_checked_turn(turn, f"messages[{n}]") for n, turn in enumerate(turns)]
    return parse(kind, asked, REQUEST)


def _checked_turn(turn: Any, place: str) -> Any:
    """A message without fields that ask for nothing."""
    if not isinstance(turn, dict):
        return turn
    if turn.get("role") in ("tool", "function"):
        raise HttpProblem(400, _TOOLS, param=f"{place}.role")
    parts = turn.get("content")
    for number, part in enumerate(parts if isinstance(parts, list) else []):
        if isinstance(part, dict) and part.get("type", "text") != "text":
            raise HttpProblem(400, _OF_PARTS, param=f"{place}.content[{number}]")
    return _without_nothing(turn, _OF_MESSAGES, f"{place}.")


def _without_nothing(
    table: Mapping[str, Any], unsupported: Mapping[str, _Unsupported], place: str
) -> dict[str, Any]:
    """The fields that ask for something, where all of them are supported.

    Raises:
        HttpProblem: One is not.
    """
    kept = {name: value for name, value in table.items() if value is not None}
    for name in kept.keys() & unsupported.keys():
        found = unsupported[name]
        if kept.pop(name) not in found.neutral:
            raise HttpProblem(400, f"{place}{name}: {found.why}", param=f"{place}{name}")
    return kept
