"""Who may ask: the Host and Origin of a request, and its key.

A page of another site cannot read what a local server answers, unless its own name leads there (DNS
rebinding): then the Host is that name. So only names of this server are answered.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from alignpro_lite.serve.exchange import HttpExchange
from alignpro_lite.serve.problems import HttpProblem

_LOCAL_NAMES = frozenset(("localhost", "127.0.0.1", "::1"))
_WITHOUT_KEY = frozenset(("/", "/health"))
"""What holds no secret and starts no work: the page, and whether the server is well."""


@dataclass(frozen=True)
class Rules:
    """Whom a server answers.

    Attributes:
        hosts: Names of this server, in small letters, beside those of every machine for itself.
        origins: Pages of other origins that may ask.
        key: The key that clients must send; None for none.
        any_address: Whether a Host may be any IP address, as for a server that others reach.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    key: str | None = None
    any_address: bool = False

    def knows_host(self, host: str) -> bool:
        """Whether a Host header, without its port, names this server."""
        return host in _LOCAL_NAMES or host in self.hosts or (self.any_address and _is_ip(host))

    def accepts_key(self, authorization: str | None) -> bool:
        """Whether a request may be answered as far as its key is concerned."""
        if self.key is None:
            return True
        scheme, _, key = (authorization or "").partition(" ")
        known = hmac.compare_digest(key.strip().encode(), self.key.encode())
        return known and scheme.lower() == "bearer"


class AccessGuard:
    """Answers what the rules do not allow, and passes on the rest (an ASGI application)."""

    def __init__(
        self, app: ASGIApp, rules: Rules, refused: Callable[[int], None] = lambda status: None
    ) -> None:
        """Stand before an application.

        Args:
            app: What answers.
            rules: Whom it answers.
            refused: Told the status of what is refused here.
        """
        self._app = app
        self._rules = rules
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = HttpExchange(scope, receive, send)
        problem = self._problem(exchange)
        if problem is None:
            await self._app(scope, receive, send)
            return
        self._refused(problem.status)
        await exchange.fail(problem)

    def _problem(self, exchange: HttpExchange) -> HttpProblem | None:
        """Why a request is not answered; None if it is."""
        host = exchange.header("host") or ""
        name = _hostname(host)
        if not self._rules.knows_host(name):
            return HttpProblem(
                403,
                f"This server is not called {name!r:.80}. Its option --allow-host adds a name.",
                code="unknown_host",
            )
        origin = exchange.header("origin")
        if origin is not None and not self._accepts_page(origin, host):
            return HttpProblem(
                403,
                f"Pages of {origin!r:.80} may not use this server. Its option --cors-origin allows "
                "an origin.",
                code="unknown_origin",
            )
        open_to_all = exchange.scope["path"] in _WITHOUT_KEY
        if not open_to_all and not self._rules.accepts_key(exchange.header("authorization")):
            return HttpProblem(
                401,
                "The key is missing or wrong. Send it as `Authorization: Bearer KEY`.",
                headers=_CHALLENGE,
            )
        return None

    def _accepts_page(self, origin: str, host: str) -> bool:
        """Whether a page came from this server, or from an origin that may ask."""
        return origin in (f"http://{host}", f"https://{host}") or origin in self._rules.origins


_CHALLENGE: Mapping[str, str] = {"WWW-Authenticate": "Bearer"}


def _hostname(host: str) -> str:
    """A Host header without its port, in small letters."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # a broken IPv6 address
        return ""


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
