"""Compiles and renders chat templates, in the child process that `sandbox.py` keeps."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alignpro_lite.decoding.provenance import PLAIN_FILTER, SHADES, Shade, shade_constants

MAX_CHARACTERS = 1_000_000
"""Of a rendered conversation, beside `_REPEATS` times what it is told."""
_REPEATS = 16
"""JSON writes twelve characters for an emoji."""
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


def answer(request: tuple[str, Mapping[str, Any], Sequence[str]]) -> dict[str, Any]:
    """Render a template.

    Args:
        request: The template, the values of its names, and which of the names hold text that counts
            as the template's own.

    Returns:
        The `refusal` of the template itself, or the `fault` that it has, or its `text` with `own`:
        where the template wrote it, as pairs (start, end), None if that cannot be told.
    """
    template, told, names = request
    # One moment for all renderings of it: they are compared.
    values = {"strftime_now": datetime.now().strftime, **told}
    try:
        text = _rendered(_compiled(template, None), values)
        return {"text": text, "own": _own_stretches(template, values, names, text)}
    except _RefusalError as error:
        return {"refusal": str(error)[:_MAX_REASON]}
    except TemplateError as error:
        return {"fault": str(error)[:_MAX_REASON]}
    except MemoryError:
        _compiled.cache_clear()  # what is kept of one template must not be missing for the next
        return {"fault": "it fills the memory"}
    except Exception as error:  # noqa: BLE001 - a template can raise whatever Python can
        return {"fault": f"{type(error).__name__}: {error}"[:_MAX_REASON]}


def _own_stretches(
    template: str, values: Mapping[str, Any], names: Sequence[str], text: str
) -> list[tuple[int, int]] | None:
    """Where the template wrote a text: by its own shade, or by that of the messages."""
    shade = next((shade for shade in SHADES if shade.is_free(text)), None)
    if shade is None:
        return None
    told = {**values, **{name: shade.shaded(values[name]) for name in names}}
    twin = _twin(template, shade, told)
    if twin is not None and shade.plain(twin) == text:
        return shade.stretches(twin)
    messages = [
        {key: said if key == "role" else shade.shaded(said) for key, said in message.items()}
        for message in values["messages"]
    ]
    twin = _twin(template, None, {**values, "messages": messages})
    if twin is not None and shade.plain(twin) == text:
        return shade.other_stretches(twin)
    return None


def _twin(template: str, shade: Shade | None, values: Mapping[str, Any]) -> str | None:
    """The text with a part of it shaded; None if the template cannot write it so."""
    try:
        return _rendered(_compiled(template, shade), values)
    except Exception:  # noqa: BLE001 - as in `answer`
        return None


def _rendered(template: Template, values: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    most = MAX_CHARACTERS + _REPEATS * sum(
        len(text) for message in values["messages"] for text in message.values()
    )
    left = most
    for piece in template.generate(values):
        left -= len(piece)
        if left < 0:
            raise TemplateError(f"it writes more than {most} characters")
        pieces.append(piece)
    text = "".join(pieces)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TemplateError("it writes half a surrogate pair") from error
    return text


@functools.lru_cache(maxsize=32)
def _compiled(template: str, shade: Shade | None) -> Template:
    """A template, in a shade or as it is."""
    environment = _environment()
    tree = environment.parse(template)
    if shade is not None:
        environment.filters[PLAIN_FILTER] = shade.plain
        shade_constants(tree, shade)
    code = environment.compile(tree)
    told = environment.make_globals({"tools": None, "documents": None})
    return Template.from_code(environment, code, told)


def _environment() -> Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    return environment


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
