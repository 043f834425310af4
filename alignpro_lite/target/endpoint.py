"""Post JSON to one address: the key stays safe, transient failures are repeated."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import SplitResult

from alignpro_lite.errors import CancelledError, InputError, shown_url
from alignpro_lite.registry.http import (
    HttpError,
    Remote,
    check_address,
    is_loopback,
    read_body,
    read_key,
    send,
)

MAX_RESPONSE_BYTES = 1 << 26

_REDIRECTS = (300, 301, 302, 303, 304, 305, 307, 308)
_CURES = {
    401: "Set the environment variable of the key to a valid key.",
    402: "Pay for the service, or use another one.",
    404: "Correct the base URL, which usually ends in /v1, and the name of the model.",
    405: "Correct the base URL, which usually ends in /v1.",
} | dict.fromkeys(_REDIRECTS, "Set the base URL to where that redirects; no redirect is followed.")
"""Of the statuses that every other request would get too."""


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
        self._remote = Remote(url, authorization(url, key_variable))
        self._timeout = timeout
        self._retry_pauses = tuple(retry_pauses)
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
            HttpError: This request was refused, or failed at every attempt; the next one may not.
            InputError: Every request would fail: wrong address, key or certificate.
            CancelledError: `close` was called.
        """
        data = json.dumps(body).encode()
        for pause in self._retry_pauses:
            try:
                return self._post_once(data)
            except HttpError as error:
                if not error.transient:
                    raise
                if self._closed.wait(max(pause, error.retry_after)):
                    raise CancelledError() from error
        return self._post_once(data)

    def shown(self, answer: Any) -> str:
        """What came back, fit for a message: one line, cut, without the key."""
        return self._remote.quoted(json.dumps(answer).encode())

    def _post_once(self, data: bytes) -> Any:
        if self._closed.is_set():
            raise CancelledError()
        headers = {"Content-Type": "application/json"}
        try:
            with send(self._remote, headers, data, self._timeout) as response:
                content = read_body(self._remote, response, MAX_RESPONSE_BYTES)
        except HttpError as error:
            if cure := error.cure or _CURES.get(error.status or 0):
                raise InputError(f"{error}.", cure) from error
            raise
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise HttpError(
                f"expected JSON from {shown_url(self._remote.url)}, "
                f"found {self._remote.quoted(content)!r}"
            ) from error


def authorization(url: str, key_variable: str | None) -> str | None:
    """The header with the key for an address.

    Args:
        url: http or https, without user, password or query.
        key_variable: Name of the environment variable that holds the key; None for no key.

    Raises:
        InputError: The address or the key cannot be used, or the key would travel in plain text.
    """
    address = require_plain_address(url)
    key = None if key_variable is None else _key_in(key_variable)
    if key and address.scheme != "https" and not is_loopback(address.hostname or ""):
        raise InputError(
            f"The key in {key_variable} would be sent to {url} in plain text.",
            "Use an https address, or leave the key out.",
        )
    return f"Bearer {key}" if key else None


def require_plain_address(url: str) -> SplitResult:
    """Split an address that can be asked and holds nothing secret.

    Raises:
        InputError: It cannot be used, or it holds a user, password or query, which are not shown.
    """
    try:
        address = check_address(url)
    except HttpError as error:
        raise InputError(f"The base URL cannot be used: {error}.", "Correct it.") from error
    if "@" in address.netloc or address.query or address.fragment:
        raise InputError(
            f"The address of {address.hostname} holds a user, password or query.",
            "Give the plain address, and the key in an environment variable.",
        )
    return address


def _key_in(variable: str) -> str:
    """The key in an environment variable.

    Raises:
        InputError: There is none, or it cannot be used.
    """
    key = read_key(variable) if variable in os.environ else None
    if key is not None:
        return key
    if not re.fullmatch("[A-Z][A-Z0-9_]*", variable):  # perhaps the key itself: not to be shown
        raise InputError(
            "Expected the name of an environment variable that is set, found something else.",
            "Put the key into a variable such as OPENAI_API_KEY, and that name here.",
        )
    raise InputError(
        f"Expected the key in the environment variable {variable}, which is not set.",
        f"Run `export {variable}=...` first.",
    )
