"""Align-Pro on the edge: a small prompter rewrites the prompt, a frozen target answers it.

>>> from alignpro_lite import AlignedModel  # doctest: +SKIP
>>> with AlignedModel.load(target="model.gguf") as model:  # doctest: +SKIP
...     print(model.run("How do I stay safe online?").answer)

Importing this package imports no engine: each name loads its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names for type checkers; `as` marks them as public
    from alignpro_lite.aligned import AlignedModel as AlignedModel
    from alignpro_lite.asynchronous import AsyncAlignedModel as AsyncAlignedModel
    from alignpro_lite.asynchronous import AsyncAlignedStream as AsyncAlignedStream
    from alignpro_lite.decoding.cancellation import Cancellation as Cancellation
    from alignpro_lite.decoding.constraint import ANY_JSON_OBJECT as ANY_JSON_OBJECT
    from alignpro_lite.decoding.constraint import Gbnf as Gbnf
    from alignpro_lite.decoding.constraint import JsonSchema as JsonSchema
    from alignpro_lite.decoding.conversation import Message as Message
    from alignpro_lite.decoding.log_probs import TokenLogProb as TokenLogProb
    from alignpro_lite.decoding.penalties import Penalties as Penalties
    from alignpro_lite.decoding.sampling import Sampling as Sampling
    from alignpro_lite.errors import AlignProError as AlignProError
    from alignpro_lite.errors import CancelledError as CancelledError
    from alignpro_lite.events import Done as Done
    from alignpro_lite.events import Reasoning as Reasoning
    from alignpro_lite.events import Rewriting as Rewriting
    from alignpro_lite.events import Rewritten as Rewritten
    from alignpro_lite.events import Text as Text
    from alignpro_lite.hardware.device import DeviceRequest as DeviceRequest
    from alignpro_lite.prompter.prompter import Rewrite as Rewrite
    from alignpro_lite.registry.storage import Progress as Progress
    from alignpro_lite.rewriting.candidates import Candidates as Candidates
    from alignpro_lite.rewriting.certificate import Certificate as Certificate
    from alignpro_lite.rewriting.request import Budget as Budget
    from alignpro_lite.rewriting.request import Request as Request
    from alignpro_lite.rewriting.request import RhoStar as RhoStar
    from alignpro_lite.rewriting.result import Choice as Choice
    from alignpro_lite.rewriting.result import Result as Result
    from alignpro_lite.rewriting.result import Timings as Timings
    from alignpro_lite.stream import AlignedStream as AlignedStream

_MODULES = {
    "ANY_JSON_OBJECT": "decoding.constraint",
    "AlignProError": "errors",
    "AlignedModel": "aligned",
    "AlignedStream": "stream",
    "AsyncAlignedModel": "asynchronous",
    "AsyncAlignedStream": "asynchronous",
    "Budget": "rewriting.request",
    "Cancellation": "decoding.cancellation",
    "CancelledError": "errors",
    "Candidates": "rewriting.candidates",
    "Certificate": "rewriting.certificate",
    "Choice": "rewriting.result",
    "DeviceRequest": "hardware.device",
    "Done": "events",
    "Gbnf": "decoding.constraint",
    "JsonSchema": "decoding.constraint",
    "Message": "decoding.conversation",
    "Penalties": "decoding.penalties",
    "Progress": "registry.storage",
    "Reasoning": "events",
    "Request": "rewriting.request",
    "Result": "rewriting.result",
    "Rewrite": "prompter.prompter",
    "Rewriting": "events",
    "Rewritten": "events",
    "RhoStar": "rewriting.request",
    "Sampling": "decoding.sampling",
    "Text": "events",
    "Timings": "rewriting.result",
    "TokenLogProb": "decoding.log_probs",
}
"""The module of each public name."""

__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    """Load a public name from its module (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
