"""In front of another server: its requests with the last prompt rewritten, all else untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.errors import AlignProError, ContextOverflowError
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.registry.http import is_loopback
from alignpro_lite.registry.record import parse
from alignpro_lite.rewriting.draw import chosen_by_user, draw_alone, unchanged
from alignpro_lite.rewriting.result import Choice
from alignpro_lite.rewriting.spans import compile_patterns, protect
from alignpro_lite.serve.admission import Admission
from alignpro_lite.serve.asked import Asked, Usual, require_effect, rho_star
from alignpro_lite.serve.body import REQUEST, AlignFields, read_object, wrapped_seed
from alignpro_lite.serve.exchange import HttpExchange, decoded_headers, encoded_headers
from alignpro_lite.serve.metrics import ServerMetrics
from alignpro_lite.serve.problems import HttpProblem
from alignpro_lite.serve.replies import align_json

_CONNECT_SECONDS = 10.0
_LAST_STATUS = 599
"""Of HTTP; what is above has no meaning, and the server here cannot say it."""
_HOP_BY_HOP = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
_REMADE = frozenset(("host", "content-length", "expect"))
"""Headers of a request that its new body and address decide."""
_FORMATS = ("response_format", "tools", "functions", "grammar", "json_schema", "structured_outputs")
"""Fields that say what form an answer must have."""


@dataclass(frozen=True)
class Elsewhere:
    """The server that answers.

    Attributes:
        url: Up to where `/chat/completions` follows; usually ends in /v1.
        authorization: What it is sent as Authorization instead of the client's; None for that.
        keeps_authorization: Whether the client's is meant for it, and not for this server.
    """

    url: str
    authorization: str | None
    keeps_authorization: bool


class Rewriter:
    """Rewrites prompts without a target."""

    def __init__(self, prompter: Prompter, usual: Usual, threads: int) -> None:
        """Make ready; the caller closes the prompter."""
        self._prompter = prompter
        self._usual = usual
        self._pool = ThreadPoolExecutor(threads, "rewrite")

    @property
    def failure(self) -> AlignProError | None:
        """Why nothing can be rewritten any more; None while the prompter runs."""
        return self._prompter.failure

    def asked(self, body: Mapping[str, Any]) -> Asked | None:
        """What a chat asks to be rewritten; None if it does not end with words of the user.

        Raises:
            InputError: The field `alignpro` is wrong.
            HttpProblem: It sets what needs a reward.
        """
        given = body.get("alignpro")
        align = parse(AlignFields, {} if given is None else given, REQUEST.at("alignpro"))
        require_effect(align, has_reward=False)
        turns = body.get("messages")
        last = turns[-1] if isinstance(turns, list) and turns else None
        prompt = _words(last) if isinstance(last, dict) and last.get("role") == "user" else None
        if prompt is None or not isinstance(turns, list):
            return None
        usual = self._usual.at(body.get("temperature"))
        request = replace(
            usual,
            history=tuple(_history(turns[:-1])),
            rewrite="off" if align.mode == "auto" and _has_form(body) else align.mode,
            rho_star=rho_star(align, usual.rho_star),
        )
        seed = body.get("seed")
        if isinstance(seed, int):
            request = request.with_seed(wrapped_seed(seed))
        return Asked(prompt, request, 1, align, is_stream=False, include_usage=False)

    async def choose(self, asked: Asked) -> Choice:
        """Rewrite a prompt; it goes out as it is where nothing can be made of it.

        Raises:
            AlignProError: See `draw_alone`.
        """
        cancellation = Cancellation()

        def work() -> Choice:
            protected = protect(asked.prompt, compile_patterns(asked.request.protect))
            if asked.align.rewrite is not None:
                return chosen_by_user(protected.prompt, asked.align.rewrite, None)
            try:
                return draw_alone(self._prompter, protected, asked.request, cancellation)
            except ContextOverflowError as error:  # the other server may have room for it
                return unchanged(protected.prompt, error.problem)

        if not asked.prompt.strip():
            return unchanged(asked.prompt, "there is no prompt")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            cancellation.cancel()

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class Forwarder:
    """Handlers of the routes in front of another server."""

    def __init__(
        self, elsewhere: Elsewhere, rewriter: Rewriter, admission: Admission, metrics: ServerMetrics
    ) -> None:
        self._elsewhere = elsewhere
        self._rewriter = rewriter
        self._admission = admission
        self._metrics = metrics
        host = urlsplit(elsewhere.url).hostname or ""
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
            trust_env=not is_loopback(host),  # a proxy cannot reach this machine's own addresses
        )

    async def close(self) -> None:
        """Close the connections."""
        self._rewriter.close()
        await self._client.aclose()

    async def chat(self, exchange: HttpExchange, body: bytes) -> None:
        """Forward POST /v1/chat/completions with the last prompt rewritten."""
        read = read_object(body)
        asked = self._rewriter.asked(read)
        if asked is None:
            if "alignpro" in read:
                body = msgspec.json.encode(_without_align(read))
            await self._forward(exchange, body, ())
            return
        async with self._admission.place():
            choice = await self._rewriter.choose(asked)
        self._metrics.chosen(changed=choice.changed)
        if choice.changed or "alignpro" in read or choice.prompt != asked.prompt:
            body = msgspec.json.encode(_with_prompt(read, choice.sent))
        changed = "true" if choice.changed else "false"
        told = (("x-alignpro-changed", changed), ("x-alignpro-reason", quote(choice.reason)))
        await self._forward(exchange, body, told)

    async def rewrite(self, exchange: HttpExchange, body: bytes) -> None:
        """Answer POST /v1/alignpro/rewrite, which takes what a chat takes."""
        asked = self._rewriter.asked(read_object(body))
        if asked is None:
            raise HttpProblem(400, "The last message must be words of the user.", param="messages")
        async with self._admission.place():
            choice = await self._rewriter.choose(asked)
        self._metrics.chosen(changed=choice.changed)
        await exchange.send_json(align_json(choice, asked))

    async def other(self, exchange: HttpExchange, body: bytes) -> None:
        """Forward whatever else there is below /v1.

        Raises:
            HttpProblem: 400, it asks for a rewrite, of which there are none here.
        """
        if _asks_for_a_rewrite(body):
            raise HttpProblem(
                400,
                f"What is sent to {exchange.scope['path']} is passed on as it is. Leave out "
                "alignpro, or ask /v1/chat/completions.",
                param="alignpro",
            )
        await self._forward(exchange, body, ())

    async def _forward(
        self, exchange: HttpExchange, body: bytes, told: tuple[tuple[str, str], ...]
    ) -> None:
        """Send a request on, and what comes back piece by piece.

        Raises:
            HttpProblem: 502, the other server cannot be reached or breaks off; 404, the path leads
                out of /v1.
        """
        # Not the client's `build_request`: it adds headers of its own, of which Accept-Encoding
        # asks for what the client may be unable to read, and cookies that others were given.
        request = httpx.Request(
            exchange.scope["method"],
            self._address(exchange),
            headers=self._request_headers(exchange),
            content=body,
        )
        try:
            answer = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise self._broken("cannot be reached", error) from error
        try:
            if answer.status_code > _LAST_STATUS:
                raise self._broken("cannot be understood", f"status {answer.status_code}")
            headers = [*_end_to_end(decoded_headers(answer.headers.raw)), *told]
            await exchange.start(answer.status_code, headers)
            async for piece in answer.aiter_raw():
                await exchange.write(piece, more=True)
            await exchange.write(b"", more=False)
        except httpx.TransportError as error:
            raise self._broken("broke off", error) from error
        finally:
            await answer.aclose()

    def _broken(self, how: str, why: object) -> HttpProblem:
        reason = str(why) or type(why).__name__
        return HttpProblem(502, f"{self._elsewhere.url} {how} ({reason}).", code="upstream")

    def _address(self, exchange: HttpExchange) -> str:
        raw: bytes = exchange.scope["raw_path"]
        before, prefix, path = raw.decode("ascii").partition("?")[0].partition("/v1")
        # The other server, or the library that asks it, would follow `..` to routes that are not
        # below its address, with its key.
        segments = exchange.scope["path"].replace("\\", "/").split("/")
        if before or not prefix or ".." in segments:
            raise HttpProblem(404, "The path leads out of /v1, where all that is forwarded is.")
        query = exchange.scope["query_string"].decode("ascii")
        return self._elsewhere.url.rstrip("/") + path + (f"?{query}" if query else "")

    def _request_headers(self, exchange: HttpExchange) -> list[tuple[bytes, bytes]]:
        sent = [
            (name, value)
            for name, value in _end_to_end(exchange.headers())
            if name not in _REMADE
            and (name != "authorization" or self._elsewhere.keeps_authorization)
        ]
        if self._elsewhere.authorization is not None:
            sent = [(name, value) for name, value in sent if name != "authorization"]
            sent.append(("authorization", self._elsewhere.authorization))
        return encoded_headers(sent)


def _end_to_end(headers: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Headers that are meant for the other end of a chain of servers."""
    named = ",".join(value for name, value in headers if name.lower() == "connection")
    hops = _HOP_BY_HOP | {name.strip().lower() for name in named.split(",")}
    for name, value in headers:
        if name.lower() not in hops and not name.lower().startswith("access-control-"):
            yield name.lower(), value


def _words(turn: Mapping[str, Any]) -> str | None:
    """What a message says; None if that is not text alone in one piece."""
    content = turn.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part for part in parts if _is_text(part)]
    return texts[0]["text"] if len(texts) == 1 else None


def _is_text(part: Any) -> bool:
    """Whether a part of a message, as a client wrote it, is text."""
    is_table = isinstance(part, dict) and part.get("type") == "text"
    return is_table and isinstance(part.get("text"), str)


def _history(turns: list[Any]) -> Iterator[Message]:
    """Turns that a prompter may read; of others, such as results of tools, nothing."""
    for turn in turns:
        if isinstance(turn, dict) and turn.get("role") in ("user", "assistant"):
            words = _words(turn)
            if words:
                yield Message(turn["role"], words)


def _has_form(body: Mapping[str, Any]) -> bool:
    """Whether an answer must have a form that a rewrite could spoil."""
    given = [body.get(name) for name in _FORMATS]
    return any(value for value in given if value != {"type": "text"})


def _with_prompt(body: Mapping[str, Any], sent: str) -> dict[str, Any]:
    """A chat with another last prompt, without the field that is for this server."""
    *before, last = body["messages"]
    content = last["content"]
    if isinstance(content, list):
        content = [part | {"text": sent} if _is_text(part) else part for part in content]
    else:
        content = sent
    return _without_align(body) | {"messages": [*before, last | {"content": content}]}


def _without_align(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat without the field that is for this server: the other one may refuse it."""
    return {name: value for name, value in body.items() if name != "alignpro"}


def _asks_for_a_rewrite(body: bytes) -> bool:
    """Whether the body of a route that is only forwarded has the field that is for this server."""
    if b'"alignpro"' not in body:
        return False
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the other server's to read
        return False
    return isinstance(found, dict) and "alignpro" in found
