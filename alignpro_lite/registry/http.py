"""One HTTP request: what failed and whether to try again, where a key goes, what may be shown."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import os
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import IO
from urllib.parse import SplitResult, unquote, urlsplit

from alignpro_lite.errors import InputError, shown_url
from alignpro_lite.registry.storage import CHUNK_BYTES

TIMEOUT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
"""How long an address of a host is given to accept a connection."""
MAX_RETRY_AFTER = 60.0
"""Seconds; a server that asks for more is asked again sooner."""

_MESSAGE_BYTES = 1 << 16
_SHOWN_CHARACTERS = 200
_TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))
_PROXY_CURE = "Put the proxy's user and password into HTTPS_PROXY."
_CERTIFICATE_CURE = "Set SSL_CERT_FILE to the certificates that the server needs."


@dataclass(frozen=True)
class Remote:
    """A URL to ask.

    Attributes:
        url: http or https.
        authorization: Value of the Authorization header. It is sent to the origin of
            `url` and never follows a redirect to another one.
    """

    url: str
    authorization: str | None = field(default=None, repr=False)

    @classmethod
    def at(cls, address: str, key: str | None = None) -> Remote:
        """An address as people write it; a user and password in it are sent instead of the key."""
        scheme, slashes, rest = address.partition("://")
        credentials, at, place = rest.rpartition("@")
        if not at or re.search("[/?#]", credentials):
            return cls(address, f"Bearer {key}" if key else None)
        token = base64.b64encode(unquote(credentials).encode()).decode()
        return cls(scheme + slashes + place, f"Basic {token}")

    def quoted(self, content: bytes) -> str:
        """What the server said, fit for a message: one line, cut, without key and password.

        Services are known to repeat a wrong key in their error message.
        """
        text = content.decode("utf-8", errors="replace")
        for secret in self._secrets():
            text = text.replace(secret, "***")
        return " ".join(text.split())[:_SHOWN_CHARACTERS].rstrip(".")

    def _secrets(self) -> list[str]:
        """The texts that must not be shown: the key, or what it encodes, then the password."""
        kind, _, key = (self.authorization or "").partition(" ")
        pair = base64.b64decode(key).decode() if kind == "Basic" else ""
        return [secret for secret in (key, pair, pair.partition(":")[2]) if secret]


def read_key(variable: str) -> str | None:
    """The key in an environment variable, None if there is none.

    Raises:
        InputError: It holds what no header can carry; the error does not show it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"The key in the environment variable {variable} holds characters that no key has.",
            "Set it again, on one line.",
        )
    return key or None


class HttpError(Exception):
    """A request without a usable answer; its text is a clause, to be put into a sentence.

    Attributes:
        status: The HTTP status, None if there was none.
        transient: Whether another attempt may succeed.
        unreachable: Whether no connection was made at all.
        cure: What fixes it, None where that depends on what was asked.
        headers: Of the answer, empty if there was none.
    """

    def __init__(
        self,
        problem: str,
        status: int | None = None,
        *,
        transient: bool = False,
        unreachable: bool = False,
        cure: str | None = None,
        headers: Message | None = None,
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.transient = transient
        self.unreachable = unreachable
        self.cure = cure
        self.headers = headers or Message()

    @property
    def retry_after(self) -> float:
        """Seconds that the server asks to be left alone, at most MAX_RETRY_AFTER."""
        value = self.headers.get("Retry-After", "")
        return min(float(value), MAX_RETRY_AFTER) if re.fullmatch(r"[0-9]{1,9}", value) else 0.0


def send(
    remote: Remote,
    headers: Mapping[str, str],
    data: bytes | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> http.client.HTTPResponse:
    """Send one request: GET, or POST if there is data.

    A GET follows redirects, but never from https to anything else, and without the
    authorization to another origin; a POST follows none. No proxy is asked for this machine's own
    addresses.

    Args:
        remote: Where to.
        headers: In addition to User-Agent and Authorization.
        data: The body.
        timeout: Seconds of silence after which the attempt has failed.

    Returns:
        The answer, its body still to be read; the caller closes it.

    Raises:
        HttpError: The address cannot be used, nobody answered, or the answer is an error.
    """
    check_address(remote.url)
    request = urllib.request.Request(remote.url, data, {"User-Agent": "alignpro-lite", **headers})
    if remote.authorization:
        request.add_unredirected_header("Authorization", remote.authorization)
    opener = urllib.request.build_opener(_Redirects, _Proxies, _Http, _Https)
    failure: HttpError
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
        return response
    except urllib.error.HTTPError as error:
        failure = _status_error(remote, error)
    except (OSError, http.client.HTTPException, ValueError) as error:
        failure = _connection_error(remote, error)
    # Outside of the handlers: what urllib raises may show a proxy's password or a signed address.
    raise failure


def chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece.

    Raises:
        HttpError: The connection broke.
    """
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HttpError(f"the connection broke ({error})", transient=True) from error
        if not chunk:
            return
        yield chunk


def read_body(remote: Remote, response: http.client.HTTPResponse, limit: int) -> bytes:
    """The whole body.

    Raises:
        HttpError: The connection broke, or the body is longer than `limit` bytes.
    """
    body = bytearray()
    for chunk in chunks(response):
        body += chunk
        if len(body) > limit:
            raise HttpError(f"{shown_url(remote.url)} answered more than {limit:,} bytes")
    return bytes(body)


def check_address(url: str) -> SplitResult:
    """Split an address that can be asked.

    Raises:
        HttpError: It is not an http or https address of a host.
    """
    try:
        address = urlsplit(url)
        host = (address.hostname or "").encode("idna")
        usable = address.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:  # a broken IPv6 address, port or host name
        host, usable = b"", False
    if not (usable and host and address.scheme in ("http", "https")):
        raise HttpError(f"expected an http or https address, found {shown_url(url)!r:.80}")
    return address


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Connection(http.client.HTTPConnection):
    """A connection that is given less time to be made than to answer."""

    def connect(self) -> None:
        """Connect, within CONNECT_SECONDS for each address."""
        patience, self.timeout = self.timeout, _shorter(self.timeout)
        super().connect()
        self.sock.settimeout(patience)


class _SecureConnection(http.client.HTTPSConnection):
    """The same with TLS."""

    def connect(self) -> None:
        """Connect, within CONNECT_SECONDS for each address."""
        patience, self.timeout = self.timeout, _shorter(self.timeout)
        super().connect()
        self.sock.settimeout(patience)


def _shorter(timeout: float | None) -> float:
    return CONNECT_SECONDS if timeout is None else min(timeout, CONNECT_SECONDS)


class _Http(urllib.request.HTTPHandler):
    """Open http addresses with the connection above."""

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an address."""
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    """Open https addresses with the connection above."""

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Open an address."""
        return self.do_open(_SecureConnection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects without taking a key to another origin or leaving https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.data is not None:
            return None  # the redirect stays what it is, an answer with an error status
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and new.scheme != old.scheme:
            raise HttpError(
                f"{shown_url(req.full_url)} redirects to {new.scheme}, which is not safe", code
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        key = req.unredirected_hdrs.get("Authorization")
        if request and key and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            request.add_unredirected_header("Authorization", key)
        return request


class _Proxies(urllib.request.ProxyHandler):
    """The proxies of the environment, except for this machine's own addresses.

    A proxy cannot reach them, and may not see the key that is sent to them in plain text.
    """

    def proxy_open(
        self,
        req: urllib.request.Request,
        proxy: str,
        type: str,  # noqa: A002 - urllib's name
    ) -> http.client.HTTPResponse | None:
        if is_loopback(urlsplit(req.full_url).hostname or ""):
            return None
        return super().proxy_open(req, proxy, type)


def _status_error(remote: Remote, error: urllib.error.HTTPError) -> HttpError:
    with error:
        reason = remote.quoted(str(error.reason).encode(errors="replace"))
        problem = f"{shown_url(remote.url)} answered {error.code} {reason}"
        if message := _server_message(remote, error):
            problem += f": {message}"
    return HttpError(
        problem,
        error.code,
        transient=error.code in _TRANSIENT,
        cure=_PROXY_CURE if error.code == http.client.PROXY_AUTHENTICATION_REQUIRED else None,
        headers=error.headers,
    )


def _server_message(remote: Remote, error: urllib.error.HTTPError) -> str:
    """What the server says about an error, empty if it is nothing for a message."""
    if error.headers.get_content_type() == "text/html":
        return ""
    try:
        content = error.read(_MESSAGE_BYTES)
    except (OSError, http.client.HTTPException):
        return ""
    return remote.quoted(_json_message(content) or content)


def _json_message(content: bytes) -> bytes | None:
    """The `error.message` or `error` of a JSON error body, as OpenAI and many others write it."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message.encode(errors="replace") if isinstance(message, str) else None


def _connection_error(remote: Remote, error: Exception) -> HttpError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    # Only what the operating system says is free of addresses and headers.
    said = str(reason) if isinstance(reason, OSError) else ""
    problem = f"{shown_url(remote.url)} cannot be reached ({said or type(reason).__name__})"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return HttpError(problem, cure=_CERTIFICATE_CURE)
    # urllib wraps what happens until the request is sent; what comes later is raised as it is.
    return HttpError(problem, transient=True, unreachable=isinstance(error, urllib.error.URLError))
