"""Post JSON to one address: the key stays safe, passing failures are repeated."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

from alignpro_lite.errors import CancelledError, InputError

MAX_RESPONSE_BYTES = 1 << 26
MAX_RETRY_AFTER = 60.0
"""Seconds; a server that asks for more is asked again sooner."""
_SHOWN_CHARACTERS = 200

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_CURES = {
    401: "Set the environment variable of the key to a valid key.",
    402: "Pay for the service, or use another one.",
    404: "Correct the base URL, which usually ends in /v1, and the name of the model.",
    405: "Correct the base URL, which usually ends in /v1.",
    407: "Put the proxy's user and password into HTTPS_PROXY.",
}
"""Of the statuses that no repetition and no other request would change."""


class RequestError(Exception):
    """One request that was not answered; the next one may be.

    Attributes:
        status: The HTTP status, None if there was none.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _PassingError(RequestError):
    """A failure worth another attempt.

    Attributes:
        retry_after: Seconds that the server wants to be left alone.
    """

    def __init__(self, reason: str, status: int | None = None, retry_after: float = 0.0) -> None:
        super().__init__(reason, status)
        self.retry_after = retry_after


class Endpoint:
    """One address that takes JSON and answers JSON; any number of threads may post to it."""

    def __init__(
        self, url: str, key_variable: str | None, timeout: float, retry_pauses: Sequence[float]
    ) -> None:
        """Check the address and read the key; nothing is sent yet.

        Args:
            url: http or https, without user, password or query.
            key_variable: Name of the environment variable that holds the key, sent as a bearer
                token; None sends none.
            timeout: Seconds of silence after which an attempt has failed.
            retry_pauses: Seconds before each further attempt.

        Raises:
            InputError: The address or the key cannot be used, or the key would travel in plain
                text.
        """
        address = _checked_address(url)
        local = _is_loopback(address.hostname or "")
        self.url = url
        self._key = None if key_variable is None else _read_key(key_variable)
        if self._key and not local and address.scheme != "https":
            raise InputError(
                f"The key in {key_variable} would be sent to {url} in plain text.",
                "Use an https address, or leave the key out.",
            )
        self._timeout = timeout
        self._retry_pauses = tuple(retry_pauses)
        # A proxy can neither reach this machine's own loopback nor may it see the key.
        handlers = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(_NoRedirects, *handlers)
        self._closed = threading.Event()

    def close(self) -> None:
        """End all retries; attempts under way end by themselves."""
        self._closed.set()

    def post(self, body: Mapping[str, Any]) -> Any:
        """Send an object and return what comes back.

        Args:
            body: Becomes a JSON object.

        Returns:
            The decoded JSON of the answer.

        Raises:
            RequestError: This request was refused, or failed at every attempt.
            InputError: Every request would fail: wrong address, key or certificate.
            CancelledError: `close` was called.
        """
        data = json.dumps(body).encode()
        for pause in self._retry_pauses:
            try:
                return self._post_once(data)
            except _PassingError as error:
                if self._closed.wait(max(pause, error.retry_after)):
                    raise CancelledError() from error
        return self._post_once(data)

    def _post_once(self, data: bytes) -> Any:
        if self._closed.is_set():
            raise CancelledError()
        headers = {"Content-Type": "application/json", "User-Agent": "alignpro-lite"}
        request = urllib.request.Request(self.url, data, headers, method="POST")
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                content = response.read(MAX_RESPONSE_BYTES + 1)
        except urllib.error.HTTPError as error:
            raise self._status_error(error) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._connection_error(error) from error
        return self._decoded(content)

    def _decoded(self, content: bytes) -> Any:
        if len(content) > MAX_RESPONSE_BYTES:
            raise RequestError(f"{self.url} answered more than {MAX_RESPONSE_BYTES:,} bytes")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RequestError(
                f"{self.url} answered no JSON but {self._shown(content)!r}"
            ) from error

    def _status_error(self, error: urllib.error.HTTPError) -> Exception:
        with error:
            problem = f"{self.url} answered {error.code} {error.reason}: {self._complaint(error)}"
        if error.code in _PASSING:
            return _PassingError(problem, error.code, _retry_after(error))
        if 300 <= error.code < 400:
            return InputError(
                f"{self.url} answered {error.code}, a redirect, which is not followed.",
                "Set the base URL to the address that it leads to.",
            )
        if error.code in _CURES:
            return InputError(f"{problem}.", _CURES[error.code])
        return RequestError(problem, error.code)

    def _complaint(self, error: urllib.error.HTTPError) -> str:
        """What the server says about an error, in one short line."""
        try:
            content = error.read(MAX_RESPONSE_BYTES)
        except (OSError, http.client.HTTPException):
            return "no reason given"
        return self._shown(_message(content) or content) or "no reason given"

    def _shown(self, content: str | bytes) -> str:
        """Foreign text fit for a message: one line, not the whole of a long one, without the key.

        Services are known to repeat a wrong key in their complaint.
        """
        text = content.decode("utf-8", errors="replace") if isinstance(content, bytes) else content
        safe = text.replace(self._key, "***") if self._key else text
        return " ".join(safe.split())[:_SHOWN_CHARACTERS].rstrip(".")

    def _connection_error(self, error: Exception) -> Exception:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        problem = f"{self.url} cannot be reached ({reason or type(reason).__name__})"
        if isinstance(reason, ssl.SSLCertVerificationError):
            return InputError(
                f"{problem}.", "Set SSL_CERT_FILE to the certificates that the endpoint needs."
            )
        return _PassingError(problem)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leave a redirect as the error status that it then is: the key goes to one host alone."""

    def redirect_request(self, *args: object) -> None:
        return None


def _message(content: bytes) -> str | None:
    """The `error.message` of a JSON complaint, as OpenAI and its likes write it."""
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        return None
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None


def _retry_after(error: urllib.error.HTTPError) -> float:
    value = error.headers.get("Retry-After", "")
    return min(float(value), MAX_RETRY_AFTER) if re.fullmatch(r"[0-9]{1,9}", value) else 0.0


def _checked_address(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        host = (address.hostname or "").encode("idna")
        usable = address.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:  # a broken IPv6 address, port or host name
        host, usable = b"", False
    if not (usable and host and address.scheme in ("http", "https")):
        raise InputError(
            f"Expected an http or https address, found {url!r:.80}.", "Correct the base URL."
        )
    if "@" in address.netloc or address.query or address.fragment:
        raise InputError(
            f"The address of {address.hostname} holds a user, password or query, which messages "
            "would show.",
            "Give the plain address, and the key in an environment variable.",
        )
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(
            f"Expected the key in the environment variable {variable}, which is not set.",
            f"Run `export {variable}=...` first.",
        )
    if not (key.isascii() and key.isprintable()):
        raise InputError(
            f"The key in the environment variable {variable} holds characters that no key has.",
            "Set it again, on one line.",
        )
    return key
