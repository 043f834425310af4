"""What clients get: completions and their chunks in OpenAI's form, with a field `alignpro`."""

from __future__ import annotations

import codecs
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.events import Reasoning, Rewriting, Rewritten, Text
from alignpro_lite.rewriting.candidates import Candidates
from alignpro_lite.rewriting.plain import certificate_json
from alignpro_lite.rewriting.result import Choice, Result
from alignpro_lite.serve.asked import Asked


class ReplyForm(Protocol):
    """How answers of one route are written.

    Attributes:
        prefix: What the ids of its answers begin with.
        whole: What it calls a whole answer.
        part: What it calls a piece of one.
    """

    prefix: str
    whole: str
    part: str

    def choice(self, result: Result) -> dict[str, Any]:
        """A whole answer."""

    def opening(self) -> dict[str, Any]:
        """What a stream begins with."""

    def piece(self, index: int, said: Reasoning | Text) -> dict[str, Any]:
        """A piece of an answer, or of the thought before it; those of one answer come in order."""

    def closing(self) -> dict[str, Any]:
        """What a stream ends with."""


class ChatForm:
    """Messages of an assistant."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    part = "chat.completion.chunk"

    def choice(self, result: Result) -> dict[str, Any]:
        """A whole answer."""
        thought = {"reasoning_content": result.reasoning} if result.reasoning else {}
        message = {"role": "assistant", "content": result.answer, "refusal": None}
        return {"message": message | thought, "logprobs": _chat_log_probs(result.log_probs)}

    def opening(self) -> dict[str, Any]:
        """What a stream begins with."""
        return {"delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def piece(self, index: int, said: Reasoning | Text) -> dict[str, Any]:
        """A piece of an answer, or of the thought before it."""
        if isinstance(said, Reasoning):
            return {"delta": {"reasoning_content": said.text}, "logprobs": None}
        return {"delta": {"content": said.text}, "logprobs": _chat_log_probs(said.log_probs)}

    def closing(self) -> dict[str, Any]:
        """What a stream ends with."""
        return {"delta": {}, "logprobs": None}


class TextForm:
    """Bare texts, without what was thought before them."""

    prefix = "cmpl"
    whole = "text_completion"
    part = "text_completion"

    def __init__(self) -> None:
        self._places: defaultdict[int, _TokenPlaces] = defaultdict(_TokenPlaces)

    def choice(self, result: Result) -> dict[str, Any]:
        """A whole answer."""
        log_probs = _text_log_probs(result.log_probs, _TokenPlaces())
        return {"text": result.answer, "logprobs": log_probs}

    def opening(self) -> dict[str, Any]:
        """What a stream begins with."""
        return {"text": "", "logprobs": None}

    def piece(self, index: int, said: Reasoning | Text) -> dict[str, Any]:
        """A piece of an answer; nothing of a thought."""
        if isinstance(said, Reasoning):
            return self.opening()
        return {"text": said.text, "logprobs": _text_log_probs(said.log_probs, self._places[index])}

    def closing(self) -> dict[str, Any]:
        """What a stream ends with."""
        return self.opening()


def _chat_log_probs(tokens: Sequence[TokenLogProb]) -> dict[str, Any] | None:
    if not tokens:
        return None
    return {"content": [_chat_token(token) for token in tokens], "refusal": None}


def _chat_token(token: TokenLogProb) -> dict[str, Any]:
    others = [_bare_token(other) for other in token.alternatives]
    return _bare_token(token) | {"top_logprobs": others}


def _bare_token(token: TokenLogProb) -> dict[str, Any]:
    return {"token": token.text, "bytes": list(token.piece), "logprob": token.log_prob}


class _TokenPlaces:
    """Where the tokens of an answer begin in its text; parts of a character begin where it does."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._end = 0

    def next(self, tokens: Sequence[TokenLogProb]) -> Iterator[int]:
        """The places of the tokens that follow."""
        for token in tokens:
            yield self._end
            self._end += len(self._decoder.decode(token.piece))


def _text_log_probs(tokens: Sequence[TokenLogProb], places: _TokenPlaces) -> dict[str, Any] | None:
    if not tokens:
        return None
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.log_prob for token in tokens],
        "top_logprobs": [
            {other.text: other.log_prob for other in token.alternatives} for token in tokens
        ],
        "text_offset": [*places.next(tokens)],
    }


@dataclass(frozen=True)
class Usage:
    """Tokens of a request.

    Attributes:
        prompt: Tokens that the target read, once for all answers.
        completion: Tokens that it wrote, thoughts and stop tokens included.
    """

    prompt: int
    completion: int

    def plain(self) -> dict[str, Any]:
        """In OpenAI's form."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }


@dataclass(frozen=True)
class ReplyWriter:
    """One answer on its way to a client.

    Attributes:
        form: Of its route.
        model: What the client called the model.
        identity: Of this answer.
        created: Seconds since 1970.
    """

    form: ReplyForm
    model: str
    identity: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, results: Sequence[Result], usage: Usage, align: Any) -> dict[str, Any]:
        """All answers at once."""
        choices = [
            {"index": index, **self.form.choice(result), "finish_reason": result.finish_reason}
            for index, result in enumerate(results)
        ]
        return self._object(self.form.whole, choices) | {
            "usage": usage.plain(),
            "alignpro": align,
        }

    def opening(self, index: int) -> dict[str, Any]:
        """The first chunk of an answer."""
        return self._chunk(index, self.form.opening(), None)

    def piece(self, index: int, said: Reasoning | Text) -> dict[str, Any]:
        """A chunk with text."""
        return self._chunk(index, self.form.piece(index, said), None)

    def closing(self, index: int, result: Result) -> dict[str, Any]:
        """The last chunk of an answer."""
        return self._chunk(index, self.form.closing(), result.finish_reason)

    def usage(self, usage: Usage) -> dict[str, Any]:
        """The chunk behind all answers."""
        return self._object(self.form.part, []) | {"usage": usage.plain()}

    def progress(self, align: Any) -> dict[str, Any]:
        """A chunk about the rewrite, before any answer."""
        return self._object(self.form.part, []) | {"alignpro": align}

    def _chunk(self, index: int, content: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return self._object(self.form.part, [{"index": index, **content, "finish_reason": finish}])

    def _object(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"{self.form.prefix}-{self.identity}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def align_json(choice: Choice, asked: Asked) -> dict[str, Any]:
    """The field `alignpro`: what became of the prompt, and why."""
    return {
        "mode": "user" if asked.align.rewrite is not None else asked.align.mode,
        "prompt": choice.prompt,
        "sent": choice.sent,
        "changed": choice.changed,
        "rewrite": choice.rewrite.text if choice.rewrite else None,
        "reason": choice.reason,
        "seed": asked.request.sampling.seed,
        "certificate": certificate_json(choice.certificate),
    }


def stage_json(event: Rewriting | Candidates | Rewritten, asked: Asked) -> dict[str, Any]:
    """The field `alignpro` of a stream before its answer: how far the rewrite is."""
    match event:
        case Rewriting():
            return {"stage": "rewriting"}
        case Candidates(drawn, rated, of):
            return {"stage": "candidates", "drawn": drawn, "rated": rated, "of": of}
        case Rewritten(choice):
            return {"stage": "rewritten", **align_json(choice, asked)}
