"""What every model of this package does, wherever its engines run."""

from __future__ import annotations

from typing import Protocol, Self

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Result
from alignpro_lite.stream import EventStream


class AnsweringModel(Protocol):
    """A prompter and a frozen target; see `AlignedModel`, whose methods these are."""

    def rewrite(
        self,
        prompt: str,
        n: int = 1,
        request: Request = Request(),
        cancellation: Cancellation | None = None,
    ) -> list[Rewrite]:
        """Sample rewrites of a prompt without answering it."""

    def stream(self, prompt: str, request: Request = Request()) -> EventStream:
        """Rewrite a prompt and answer it; iterate over what it returns."""

    def run(self, prompt: str, request: Request = Request()) -> Result:
        """Rewrite a prompt, answer it, and wait for the whole answer."""

    def close(self) -> None:
        """Cancel what is running and free the memory."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
