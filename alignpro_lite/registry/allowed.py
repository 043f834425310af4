"""What a field may hold, in words, and the place in a table that an error of msgspec is about.

msgspec checks values and names the path of the first wrong one, as in "Expected `int` >= 1 - at
`$.training.steps`". The value there and what is allowed instead are looked up here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import inspect

_PATH = re.compile(r".* - at `(?:key` in `)?\$([^`]*)`", re.DOTALL)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_BOUNDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "multiple_of": "a multiple of",
}

TableType = inspect.StructType | inspect.DataclassType


@dataclass(frozen=True)
class TablePlace:
    """A value in a table.

    Attributes:
        keys: From the top down; items of a list are counted from 0.
        value: What is there.
        allowed: What may be there.
    """

    keys: tuple[str, ...]
    value: Any
    allowed: inspect.Type


def place_of(kind: type, raw: Any, message: str) -> TablePlace:
    """The place that an error message names; the table around it where it is an entry of a mapping.

    Args:
        kind: What `raw` was to become.
        raw: The whole table.
        message: The text of a `msgspec.ValidationError`.
    """
    place = TablePlace((), raw, inspect.type_info(kind))
    path = _PATH.fullmatch(message)
    for name, number in _STEP.findall(path[1] if path else ""):
        step = int(number) if number else name
        allowed = _inside(place, step)
        if allowed is None:
            break
        place = TablePlace((*place.keys, str(step)), place.value[step], allowed)
    return place


def missing_key(message: str) -> str | None:
    """The key that an error message reports as missing; None for any other error."""
    found = _MISSING.match(message)
    return found[1] if found else None


def known_keys(place: TablePlace) -> tuple[str, ...]:
    """Keys of the record at a place; none where it is not a record."""
    return tuple(key for table in _tables(place) for key in fields_of(table))


def fields_of(table: TableType) -> dict[str, inspect.Type]:
    """What each key of a record may hold, its tag first."""
    fields = {field.encode_name: field.type for field in table.fields}
    if isinstance(table, inspect.StructType) and table.tag_field is not None:
        return {table.tag_field: inspect.LiteralType((table.tag,))} | fields
    return fields


def in_words(allowed: inspect.Type) -> str:
    """What a type allows, such as `a whole number, at least 1`."""
    match allowed:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _bounds(allowed)
        case inspect.FloatType():
            return "a number" + _bounds(allowed)
        case inspect.StrType():
            return _text(allowed)
        case inspect.LiteralType(values=values):
            return _either([json.dumps(value) for value in values])
        case inspect.UnionType():
            return _either([in_words(part) for part in parts(allowed)])
        case inspect.VarTupleType(item_type=item, min_length=least):
            return f"a list{' that is not empty' if least else ''}, each item {in_words(item)}"
        case inspect.TupleType(item_types=items):
            return f"a list of {len(items)}, each item {in_words(items[0])}"
        case inspect.DictType(key_type=key, value_type=value, min_length=least):
            names = f" with names like `{bare_pattern(key)}`" if bare_pattern(key) else ""
            held = "" if isinstance(value, inspect.AnyType) else f", each value {in_words(value)}"
            return f"a table{' that is not empty' if least else ''}{names}{held}"
        case inspect.StructType() | inspect.DataclassType():
            return "a table"
    return "a value"


def parts(allowed: inspect.Type) -> tuple[inspect.Type, ...]:
    """The members of a union but None; of any other type, the type itself."""
    types = allowed.types if isinstance(allowed, inspect.UnionType) else (allowed,)
    return tuple(part for part in types if not isinstance(part, inspect.NoneType))


def bare_pattern(allowed: inspect.Type) -> str:
    """The pattern of a text without its anchors; empty if there is none."""
    pattern = allowed.pattern if isinstance(allowed, inspect.StrType) else None
    return (pattern or "").removeprefix("^").removesuffix(r"\Z")


def _inside(place: TablePlace, step: str | int) -> inspect.Type | None:
    """What may be one step further down; None if no step leads there."""
    if isinstance(step, int):
        return next(_items(place.allowed, step), None)
    tables = [part for part in parts(place.allowed) if isinstance(part, inspect.StructType)]
    if len(tables) > 1 and step == tables[0].tag_field:
        return inspect.LiteralType(tuple(table.tag for table in tables))
    return next((f[step] for f in map(fields_of, _tables(place)) if step in f), None)


def _tables(place: TablePlace) -> Iterator[TableType]:
    """Records that a place may hold: of several kinds, the one whose tag is there."""
    for part in parts(place.allowed):
        if isinstance(part, inspect.DataclassType):
            yield part
        elif isinstance(part, inspect.StructType):
            tag = (
                part.tag_field and isinstance(place.value, dict) and place.value.get(part.tag_field)
            )
            if not part.tag_field or tag == part.tag:
                yield part


def _items(allowed: inspect.Type, number: int) -> Iterator[inspect.Type]:
    for part in parts(allowed):
        if isinstance(part, inspect.VarTupleType):
            yield part.item_type
        elif isinstance(part, inspect.TupleType):
            yield part.item_types[number]


def _text(allowed: inspect.StrType) -> str:
    words = "text"
    if bare_pattern(allowed):
        words += f" like `{bare_pattern(allowed)}`"
    elif allowed.min_length:
        words += " that is not empty"
    if allowed.max_length:
        words += f", at most {allowed.max_length} characters"
    return words


def _bounds(allowed: inspect.IntType | inspect.FloatType) -> str:
    limits = [
        f"{words} {getattr(allowed, name)}"
        for name, words in _BOUNDS.items()
        if getattr(allowed, name) is not None
    ]
    return f", {' and '.join(limits)}" if limits else ""


def _either(words: list[str]) -> str:
    """`a`, `a or b`, `a, b or c`, each said once."""
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} or {last}" if others else last
