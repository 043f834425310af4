"""The routes that models answer: chat completions, completions, and rewrites alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from alignpro_lite.events import Done, Event, Reasoning, Rewriting, Rewritten, Text
from alignpro_lite.rewriting.candidates import Candidates
from alignpro_lite.rewriting.result import Result
from alignpro_lite.serve.admission import Admission
from alignpro_lite.serve.answering import Answerer, Happening
from alignpro_lite.serve.asked import (
    Asked,
    Usual,
    asked_in_chat,
    asked_in_completion,
    require_effect,
)
from alignpro_lite.serve.body import ChatBody, CommonBody, CompletionBody, read_request
from alignpro_lite.serve.exchange import HttpExchange
from alignpro_lite.serve.metrics import ServerMetrics
from alignpro_lite.serve.problems import HttpProblem
from alignpro_lite.serve.replies import (
    ChatForm,
    ReplyWriter,
    TextForm,
    Usage,
    align_json,
    stage_json,
)


@dataclass(frozen=True)
class ServedModel:
    """What the models are called, and what holds where a client sets nothing.

    Attributes:
        name: Of both models together.
        aliases: Other names that clients may use.
        usual: How prompts are rewritten and answered.
    """

    name: str
    aliases: tuple[str, ...]
    usual: Usual

    def require(self, name: str) -> None:
        """Refuse the name of another model.

        Raises:
            HttpProblem: It is.
        """
        if name not in (self.name, *self.aliases):
            raise HttpProblem(
                404,
                f"There is no model {name!r} here, only {', '.join((self.name, *self.aliases))}. "
                "The server's option --alias adds a name.",
                param="model",
                code="model_not_found",
            )


class Completions:
    """Handlers of the routes."""

    def __init__(
        self, served: ServedModel, answerer: Answerer, admission: Admission, metrics: ServerMetrics
    ) -> None:
        self._served = served
        self._answerer = answerer
        self._admission = admission
        self._metrics = metrics

    async def chat(self, exchange: HttpExchange, body: bytes) -> None:
        """Answer POST /v1/chat/completions."""
        asked = self._asked_in_chat(body)
        await self._answer(exchange, asked, ReplyWriter(ChatForm(), self._served.name))

    async def complete(self, exchange: HttpExchange, body: bytes) -> None:
        """Answer POST /v1/completions."""
        parsed = read_request(CompletionBody, body)
        self._require(parsed)
        asked = asked_in_completion(parsed, self._served.usual.at(parsed.temperature))
        await self._answer(exchange, asked, ReplyWriter(TextForm(), self._served.name))

    async def rewrite(self, exchange: HttpExchange, body: bytes) -> None:
        """Answer POST /v1/alignpro/rewrite, which takes what a chat completion takes."""
        asked = self._asked_in_chat(body)
        async with self._admission.place():
            choice = await self._answerer.choose(asked)
        self._metrics.chosen(changed=choice.changed)
        await exchange.send_json(align_json(choice, asked))

    def _asked_in_chat(self, body: bytes) -> Asked:
        parsed = read_request(ChatBody, body)
        self._require(parsed)
        return asked_in_chat(parsed, self._served.usual.at(parsed.temperature))

    def _require(self, body: CommonBody) -> None:
        """Refuse what is asked of another model, and what would have no effect."""
        self._served.require(body.model)
        require_effect(body.alignpro, has_reward=self._answerer.has_reward)

    async def _answer(self, exchange: HttpExchange, asked: Asked, reply: ReplyWriter) -> None:
        telling = _Telling(exchange, asked, reply)
        async with (
            self._admission.place(),
            aclosing(self._answerer.answer(asked)) as happenings,
        ):
            async for several in happenings:
                await telling.tell(several)
        usage = telling.usage()
        self._metrics.read("prompt", usage.prompt)
        self._metrics.read("completion", usage.completion)
        self._metrics.chosen(changed=telling.results[0].choice.changed)
        await telling.end()


class _Telling:
    """Tells a client what happens, in pieces or at the end."""

    def __init__(self, exchange: HttpExchange, asked: Asked, reply: ReplyWriter) -> None:
        self._exchange = exchange
        self._asked = asked
        self._reply = reply
        self._opened: set[int] = set()
        self._done: dict[int, Result] = {}
        self._unsent: list[dict[str, Any]] = []

    @property
    def results(self) -> list[Result]:
        """Whole answers, in order."""
        return [self._done[number] for number in sorted(self._done)]

    def usage(self) -> Usage:
        """Tokens of all answers."""
        results = self.results
        return Usage(results[0].prompt_tokens, sum(result.answer_tokens for result in results))

    async def tell(self, happenings: Sequence[Happening]) -> None:
        """Send what a stream sends, in one piece; a whole answer waits for its end."""
        for happening in happenings:
            self._unsent += self._chunks(happening.number, happening.event)
        if self._unsent and len(self._done) < self._asked.count:
            await self._exchange.send_events(self._unsent)
            self._unsent = []

    def _chunks(self, number: int, event: Event) -> Iterator[dict[str, Any]]:
        """What a stream sends when something happens."""
        if isinstance(event, Done):
            if event.result.finish_reason == "cancelled":
                raise HttpProblem(503, "The server is ending.", code="server_ending")
            self._done[number] = event.result
        if not self._asked.is_stream:
            return
        match event:
            case Rewriting() | Candidates() | Rewritten() if self._asked.align.progress:
                yield self._reply.progress(stage_json(event, self._asked))
            case Reasoning() | Text() | Done() if number not in self._opened:
                self._opened.add(number)
                yield self._of_answer(self._reply.opening(number))
        match event:
            case Reasoning() | Text():
                yield self._of_answer(self._reply.piece(number, event))
            case Done(result):
                last = self._reply.closing(number, result)
                is_last = len(self._done) == self._asked.count
                yield self._of_answer(last | {"alignpro": self._align()} if is_last else last)

    async def end(self) -> None:
        """Send what follows the last answer."""
        if not self._asked.is_stream:
            whole = self._reply.whole(self.results, self.usage(), self._align())
            await self._exchange.send_json(whole)
            return
        told = [self._reply.usage(self.usage())] if self._asked.include_usage else []
        await self._exchange.end_events([*self._unsent, *told])

    def _of_answer(self, chunk: dict[str, Any]) -> dict[str, Any]:
        # As OpenAI does: a client that asked for the usage gets the key in every chunk.
        return chunk | {"usage": None} if self._asked.include_usage else chunk

    def _align(self) -> dict[str, Any]:
        return align_json(self._done[0].choice, self._asked)
