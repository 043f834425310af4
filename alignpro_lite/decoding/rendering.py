"""Compiles and renders chat templates, in the child process that `sandbox.py` keeps."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARACTERS = 1_000_000
"""Of a rendered conversation, whose messages are short placeholders."""
_MAX_REASON = 300


class _RefusalError(TemplateError):
    """The template itself refuses the conversation."""


class _Generation(Extension):
    """`{% generation %}`, which published templates put around what a model is trained on."""

    tags = {"generation"}  # noqa: RUF012 - of this type in the class above

    def parse(self, parser: Parser) -> nodes.Node:
        """Parse the block; it renders as what it holds."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def answer(request: tuple[str, Mapping[str, Any]]) -> dict[str, str]:
    """Render a template.

    Args:
        request: The template, and the values of its names.

    Returns:
        `text`, the `refusal` of the template itself, or the `fault` that it has.
    """
    template, values = request
    try:
        return {"text": _rendered(template, values)}
    except _RefusalError as error:
        return {"refusal": str(error)[:_MAX_REASON]}
    except TemplateError as error:
        return {"fault": str(error)[:_MAX_REASON]}
    except MemoryError:
        _compiled.cache_clear()  # what is kept of one template must not be missing for the next
        return {"fault": "it fills the memory"}
    except Exception as error:  # noqa: BLE001 - a template can raise whatever Python can
        return {"fault": f"{type(error).__name__}: {error}"[:_MAX_REASON]}


def _rendered(template: str, values: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    left = MAX_CHARACTERS
    for piece in _compiled(template).generate(values):
        left -= len(piece)
        if left < 0:
            raise TemplateError(f"it writes more than {MAX_CHARACTERS} characters")
        pieces.append(piece)
    return "".join(pieces)


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment.from_string(template, {"tools": None})


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models are trained on it: Jinja's own filter escapes `<`, `>`, `&` and `'`."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: object) -> NoReturn:
    raise _RefusalError(str(message))
