"""One request and its answer: a JSON object or a stream of events, until the client hangs up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from alignpro_lite.errors import AlignProError
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.metrics import ServerMetrics
from alignpro_lite.serve.problems import HttpProblem, problem_of

_LOG = logging.getLogger("alignpro_lite.serve")
HUNG_UP = 499
"""What nginx calls the status of a request whose client did not wait for the answer."""


_EVENT_STREAM = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),  # a proxy that collects pieces would spoil it
)


def decoded_headers(raw: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Headers as text, a character for each byte, so that none of them is lost."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]


def encoded_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Headers as they travel, see `decoded_headers`."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class ClientGoneError(Exception):
    """The client has hung up."""


class HttpExchange:
    """What a route reads and writes.

    Attributes:
        status: How it went, as metrics count it; None before the answer begins.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.status: int | None = None
        self._is_stream = False

    def header(self, name: str) -> str | None:
        """A header of the request, by its name in small letters."""
        wanted = name.encode()
        found = (value for key, value in self.scope["headers"] if key == wanted)
        value = next(found, None)
        return None if value is None else value.decode("latin-1")

    def headers(self) -> list[tuple[str, str]]:
        """All headers of the request, their names in small letters."""
        return decoded_headers(self.scope["headers"])

    async def body(self, limit: int) -> bytes:
        """Read the body.

        Raises:
            HttpProblem: It is longer than `limit` bytes.
            ClientGoneError: The client has hung up before its end.
        """
        length = self.header("content-length") or "0"
        if not length.isdecimal() or int(length) > limit:
            raise _too_long(limit)
        read = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            read += message.get("body", b"")
            if len(read) > limit:
                raise _too_long(limit)
            if not message.get("more_body"):
                return bytes(read)

    async def hung_up(self) -> None:
        """Wait until the client hangs up; the body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def send_json(
        self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with a JSON object."""
        content = msgspec.json.encode(data)
        told = {"content-type": "application/json", "content-length": str(len(content))}
        await self.start(status, (told | dict(headers or {})).items())
        await self.write(content, more=False)

    async def send_events(self, events: Iterable[Any]) -> None:
        """Send objects as events of a stream, which the first ones begin, in one piece."""
        await self._write_events(map(msgspec.json.encode, events), more=True)

    async def end_events(self, events: Iterable[Any]) -> None:
        """Send the last events of a stream, and end it as OpenAI does."""
        await self._write_events([*map(msgspec.json.encode, events), b"[DONE]"], more=False)

    async def fail(self, problem: HttpProblem) -> None:
        """Tell the client; in a stream, as its last event.

        An answer of another kind that has begun is cut, which its reader notices.
        """
        if self.status is None:
            await self.send_json(problem.body(), problem.status, problem.headers)
            return
        self.status = problem.status
        if self._is_stream:
            await self._write_events([msgspec.json.encode(problem.body())], more=False)

    async def _write_events(self, events: Iterable[bytes], *, more: bool) -> None:
        if self.status is None:
            self._is_stream = True
            await self.start(200, _EVENT_STREAM)
        await self.write(b"".join(b"data: %b\n\n" % event for event in events), more=more)

    async def start(self, status: int, headers: Iterable[tuple[str, str]]) -> None:
        """Send the status and the headers."""
        self.status = status
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": encoded_headers(headers),
        }
        await self._send(start)

    async def write(self, content: bytes, *, more: bool) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": content, "more_body": more})


Handler = Callable[[HttpExchange, bytes], Awaitable[None]]


class LimitedRoute:
    """A route that takes a body: limits, deadline, hang-ups and errors are the same for all."""

    def __init__(
        self, route: str, handler: Handler, limits: Limits, metrics: ServerMetrics
    ) -> None:
        self._route = route
        self._handler = handler
        self._limits = limits
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (an ASGI application)."""
        started = time.monotonic()
        exchange = HttpExchange(scope, receive, send)
        try:
            await self._answer(exchange)
        finally:
            seconds = time.monotonic() - started
            self._metrics.finished(self._route, exchange.status or HUNG_UP, seconds)

    async def _answer(self, exchange: HttpExchange) -> None:
        try:
            async with asyncio.timeout(self._limits.seconds):
                body = await exchange.body(self._limits.body_bytes)
                await unless_gone(exchange, self._handler(exchange, body))
        except ClientGoneError:
            exchange.status = HUNG_UP
            return
        except HttpProblem as error:
            problem = error
        except AlignProError as error:
            problem = problem_of(error)
        except TimeoutError:
            seconds = f"{self._limits.seconds:g} s"
            problem = HttpProblem(504, f"The request took longer than {seconds}.")
        except Exception:  # noqa: BLE001 - a fault of the server; its log has all of it
            _LOG.exception("%s failed", self._route)
            problem = HttpProblem(500, "The server failed; its log says how.")
        else:
            return
        await exchange.fail(problem)


async def unless_gone(exchange: HttpExchange, answer: Awaitable[None]) -> None:
    """Finish an answer, or cancel it once the client hangs up.

    Raises:
        ClientGoneError: It did.
    """
    work = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(exchange.hung_up())
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGoneError
        work.result()
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


def _too_long(limit: int) -> HttpProblem:
    return HttpProblem(413, f"A body may have {limit} bytes, and this one has more.")
