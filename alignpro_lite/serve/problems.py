"""Errors as OpenAI's API writes them, and the status of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignpro_lite.errors import (
    AlignProError,
    CancelledError,
    ContextOverflowError,
    InputError,
    NoAnswerError,
)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
_CODES = {401: "invalid_api_key", 429: "server_busy", 504: "timeout"}
_SERVER_ERROR = 500


class HttpProblem(Exception):  # noqa: N818 - the client's mistake, or a busy server
    """An answer that is no success."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what is wrong.

        Args:
            status: Of HTTP.
            message: What is wrong and what to do, sentences.
            param: The field that it is about.
            code: A word that programs can look at.
            headers: What the answer tells beside.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        usual = "api_error" if self.status >= _SERVER_ERROR else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, usual),
                "param": self.param,
                "code": self.code or _CODES.get(self.status),
            }
        }


def problem_of(error: AlignProError) -> HttpProblem:
    """How a client is told of an error of the package."""
    match error:
        case ContextOverflowError():
            return HttpProblem(400, str(error), code="context_length_exceeded")
        case InputError():
            return HttpProblem(400, str(error))
        case NoAnswerError():
            return HttpProblem(422, str(error))
        case CancelledError():
            return HttpProblem(503, "The server is ending.", code="server_ending")
    return HttpProblem(500, str(error))
