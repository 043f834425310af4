"""Rendering a model file's chat template, which is foreign code, without trusting it.

Jinja's own sandbox keeps a template away from Python; this one also limits its time and memory. A
real template only moves short strings about, so the limits are strict: known filters and methods
only, no operation whose result could be large, and a deadline that is checked at every line.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import FrameType
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from alignpro_lite.errors import InputError, ModelFileError

RENDER_SECONDS = 2.0
MAX_SIZE = 100_000
"""Most characters and items that one operation may read or make."""
MAX_NUMBER = 10_000
"""Largest number that may be a count, a width or an index."""

_FILTERS = (
    *("default", "d", "trim", "upper", "lower", "capitalize", "title", "replace", "join"),
    *("length", "count", "first", "last", "list", "items", "dictsort", "map", "select", "reject"),
    *("selectattr", "rejectattr", "unique", "reverse", "sort", "string", "int", "float", "abs"),
    *("tojson", "indent", "escape", "e", "safe", "max", "min", "sum", "round"),
)
_TEXT_METHODS = (
    *("strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "partition", "rpartition"),
    *("startswith", "endswith", "removeprefix", "removesuffix", "replace", "join", "find"),
    *("rfind", "index", "count", "upper", "lower", "title", "capitalize"),
    *("isdigit", "isalpha", "isalnum", "isspace", "isupper", "islower"),
)
_GLOBALS = ("range", "dict", "namespace")
_FAULTS = (
    *(TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError),
    SyntaxError,  # from loops nested too deeply for Python
)


def render_template(
    template: str, messages: Sequence[Mapping[str, str]], special_tokens: Mapping[str, str]
) -> str:
    """Render a chat template up to where the assistant speaks next.

    A conversation that ends with the assistant's own turn is rendered as it is.

    Args:
        template: Jinja source, as in a model file.
        messages: Turns with `role` and `content`.
        special_tokens: Values for names such as `bos_token`.

    Raises:
        ModelFileError: The template is broken, too slow or uses too much memory.
        InputError: The template itself refuses the conversation.
    """
    refusals: list[str] = []

    def raise_exception(message: str) -> None:
        refusals.append(message)
        raise TemplateError(message)

    environment = _Sandbox(raise_exception)
    answered = bool(messages) and messages[-1]["role"] == "assistant"
    try:
        compiled = environment.from_string(template)
        return _with_deadline(
            lambda: compiled.render(
                messages=messages,
                add_generation_prompt=not answered,
                tools=None,
                **special_tokens,
            )
        )
    except TemplateError as error:
        if refusals:
            raise InputError(
                f"The model's chat template refuses this conversation: {refusals[0]}.",
                "Leave the system prompt out or use another model.",
            ) from error
        raise _unusable(str(error)) from error
    except (RecursionError, MemoryError) as error:
        raise _unusable(type(error).__name__) from error
    except _FAULTS as error:
        raise _unusable(f"{type(error).__name__}: {error}") from error


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, reduced to what chat templates need, each call limited in size."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, raise_exception: Callable[[str], None]) -> None:
        # Not optimised: the optimiser would compute constants before any limit applies.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            extensions=["jinja2.ext.loopcontrols"],
        )
        self.filters = {name: _bounded(self.filters[name]) for name in _FILTERS}
        self.globals = {name: self.globals[name] for name in _GLOBALS}
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in _TEXT_METHODS
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave str.format to `is_safe_attribute`, which refuses it."""

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        _require_affordable((getattr(obj, "__self__", None), *args, *kwargs.values()))
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise TemplateError("text formatting, which chat templates may not use")
        if operator == "+":
            _check_size(_size_of(left) + _size_of(right))
        else:
            _require_affordable((left, right))
        return super().call_binop(context, operator, left, right)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that refuses arguments whose result could be large."""

    @functools.wraps(function)  # keeps jinja's own marks on the function
    def filtered(*args: Any, **kwargs: Any) -> Any:
        _require_affordable((*args, *kwargs.values()))
        return function(*args, **kwargs)

    return filtered


def _require_affordable(arguments: Iterable[Any]) -> None:
    """Limit every number, and the product of all sizes, which bounds the size of the result."""
    sizes = []
    for argument in arguments:
        if isinstance(argument, int | float):
            _check_size(MAX_SIZE * (abs(argument) / MAX_NUMBER))
            sizes.append(max(1.0, abs(argument)))
        else:
            sizes.append(_size_of(argument))
    _check_size(math.prod(sizes))


def _check_size(size: float) -> None:
    if not size <= MAX_SIZE:  # also refuses NaN
        raise TemplateError("an operation that would fill the memory")


def _size_of(value: Any) -> int:
    """Characters and items of a value, including those of nested values."""
    if isinstance(value, str):
        return max(1, len(value))
    if isinstance(value, Mapping):
        return 1 + sum(_size_of(key) + _size_of(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return 1 + sum(map(_size_of, value))
    return 1


def _with_deadline(render: Callable[[], str]) -> str:
    """Run a rendering and stop it after RENDER_SECONDS, or when a variable grows too large.

    A trace function sees every line of the compiled template, works in any thread and on any
    system, and needs no second process.
    """
    deadline = time.monotonic() + RENDER_SECONDS

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if time.monotonic() > deadline:
            raise TemplateError(f"it ran for more than {RENDER_SECONDS:g} seconds")
        if frame.f_code.co_filename == "<template>":
            for value in frame.f_locals.values():
                _require_small(value)
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        return render()
    finally:
        sys.settrace(before)


def _require_small(value: Any) -> None:
    """Limit a variable; `~` joins texts without an operator that could be intercepted."""
    if isinstance(value, Namespace):
        for inner in value._Namespace__attrs.values():
            _check_size(inner if isinstance(inner, int) else _size_of(inner))
    elif isinstance(value, str):
        _check_size(len(value))


def _unusable(reason: str) -> ModelFileError:
    return ModelFileError(
        f"The chat template in the model file cannot be rendered ({reason}).",
        "Use a GGUF with a working template.",
    )
