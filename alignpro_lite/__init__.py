"""Align-Pro on the edge: a small prompter rewrites the prompt, a frozen target answers it.

>>> from alignpro_lite import AlignedModel  # doctest: +SKIP
>>> with AlignedModel.load(target="model.gguf") as model:  # doctest: +SKIP
...     print(model.run("How do I stay safe online?").answer)

Importing this package imports no engine: each name loads its module on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignpro_lite.aligned import AlignedModel, AlignedStream
    from alignpro_lite.decoding.conversation import Message
    from alignpro_lite.decoding.sampling import Sampling
    from alignpro_lite.errors import AlignProError
    from alignpro_lite.hardware.device import DeviceRequest
    from alignpro_lite.prompter.prompter import Rewrite
    from alignpro_lite.rewriting.certificate import Certificate
    from alignpro_lite.rewriting.request import Budget, Request, RhoStar
    from alignpro_lite.rewriting.result import Choice, Result, Timings

_HOMES = {
    "AlignProError": "errors",
    "AlignedModel": "aligned",
    "AlignedStream": "aligned",
    "Budget": "rewriting.request",
    "Certificate": "rewriting.certificate",
    "Choice": "rewriting.result",
    "DeviceRequest": "hardware.device",
    "Message": "decoding.conversation",
    "Request": "rewriting.request",
    "Result": "rewriting.result",
    "Rewrite": "prompter.prompter",
    "RhoStar": "rewriting.request",
    "Sampling": "decoding.sampling",
    "Timings": "rewriting.result",
}

__all__ = [
    "AlignProError",
    "AlignedModel",
    "AlignedStream",
    "Budget",
    "Certificate",
    "Choice",
    "DeviceRequest",
    "Message",
    "Request",
    "Result",
    "Rewrite",
    "RhoStar",
    "Sampling",
    "Timings",
]


def __getattr__(name: str) -> object:
    """Load a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
