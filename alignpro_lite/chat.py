"""Chat messages to token runs, through a model's own chat template.

A template comes with a model file and is therefore foreign code: it is rendered
in a sandbox with a time limit. A user's text is data: special tokens written in
it stay plain text. Both the target and the prompter go through here.
"""

from __future__ import annotations

import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any, Literal

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alignpro_lite.errors import InputError, ModelFileError

RENDER_SECONDS = 2.0
MAX_REPEAT = 100_000
"""Longest text or list a template may make by `*`; larger ones are attacks on memory."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Run:
    """A stretch of a rendered prompt.

    Attributes:
        text: The characters.
        special: True for a special token that the template itself put there.
    """

    text: str
    special: bool


def render(
    template: str | None, messages: Sequence[Message], special_tokens: dict[str, str]
) -> list[tuple[str, bool]]:
    """Render a conversation up to where the assistant speaks next.

    Args:
        template: The model's Jinja chat template; None joins the plain texts.
        messages: The conversation.
        special_tokens: Values for names such as `bos_token` and `eos_token`.

    Returns:
        Segments in order: (text, True) is the template's own, (text, False) a message's.

    Raises:
        ModelFileError: The template is broken, too slow or loses a message.
        InputError: The template itself refuses the conversation.
    """
    if template is None:
        return [("\n\n".join(message.content for message in messages), False)]
    marks = {_mark(): message for message in messages}
    marked = [{"role": message.role, "content": mark} for mark, message in marks.items()]
    rendered = _render_sandboxed(template, marked, special_tokens)
    lost = [m.role for mark, m in marks.items() if mark not in rendered and m.role != "assistant"]
    if lost:
        raise InputError(
            f"The model's chat template has no place for a {lost[0]} message.",
            "Leave the system prompt out, or use a model whose template has one.",
        )
    parts = re.split("(" + "|".join(marks) + ")", rendered)
    return [
        (marks[part].content, False) if part in marks else (part, True) for part in parts if part
    ]


def token_runs(segments: Iterable[tuple[str, bool]], special: Sequence[str]) -> list[Run]:
    """Cut segments into special tokens and plain text.

    Neighbouring plain texts are joined across the border of a message, so that
    they are tokenised exactly as the whole prompt would be.

    Args:
        segments: What `render` returns.
        special: Texts of the special tokens that the template may use.

    Returns:
        Runs in order; no two plain runs are neighbours.
    """
    ordered = sorted((re.escape(text) for text in special if text), key=len, reverse=True)
    pattern = re.compile("(" + "|".join(ordered) + ")") if ordered else None
    runs: list[Run] = []
    for text, from_template in segments:
        pieces = pattern.split(text) if pattern and from_template else [text]
        for place, piece in enumerate(pieces):
            if not piece:
                continue
            is_special = place % 2 == 1
            if not is_special and runs and not runs[-1].special:
                runs[-1] = Run(runs[-1].text + piece, False)
            else:
                runs.append(Run(piece, is_special))
    return runs


def _mark() -> str:
    """A stand-in for a message that no template changes and no message contains."""
    return f"message{secrets.token_hex(16)}"


_TEMPLATE_FAULTS = (
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RuntimeError,
    SyntaxError,
)
"""What Python raises for a wrong template; SyntaxError comes from loops nested too deeply."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox without operators that can fill the memory in one step."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [_size(left), _size(right)]
        numbers = [abs(side) for side in (left, right) if isinstance(side, int | float)]
        numeric = len(numbers) == 2
        formats = operator == "%" and not numeric
        too_large = operator == "**" and max(numbers, default=0) > 1000
        too_long = not numeric and max(sizes) * max(numbers, default=1) > MAX_REPEAT
        if too_large or too_long or formats:
            raise TemplateError("an operation that would fill the memory")
        return super().call_binop(context, operator, left, right)


def _size(value: Any) -> int:
    """Characters and items of a value, those of nested lists included."""
    if isinstance(value, str):
        return len(value)
    return 1 + sum(map(_size, value)) if isinstance(value, list | tuple) else 1


def _render_sandboxed(
    template: str, messages: list[dict[str, str]], special_tokens: dict[str, str]
) -> str:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    refusals: list[str] = []

    def raise_exception(message: str) -> None:
        refusals.append(message)
        raise TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    try:
        compiled = environment.from_string(template)
        return _with_deadline(
            lambda: compiled.render(
                messages=messages, add_generation_prompt=True, tools=None, **special_tokens
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
    except _TEMPLATE_FAULTS as error:
        raise _unusable(f"{type(error).__name__}: {error}") from error


def _unusable(reason: str) -> ModelFileError:
    return ModelFileError(
        f"The chat template in the model file cannot be rendered ({reason}).",
        "Use a GGUF with a working template.",
    )


class _TooSlowError(TemplateError):
    """The template ran past its time."""


def _with_deadline(render_template: Callable[[], str]) -> str:
    """Run a rendering and stop it after RENDER_SECONDS.

    A trace function sees every line of the compiled template, works in any
    thread and on any system, and needs no second process.
    """
    deadline = time.monotonic() + RENDER_SECONDS

    def watch(frame: FrameType, event: str, argument: object) -> Any:
        if time.monotonic() > deadline:
            raise _TooSlowError(f"it ran for more than {RENDER_SECONDS:g} seconds")
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        return render_template()
    finally:
        sys.settrace(before)
