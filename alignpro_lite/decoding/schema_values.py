"""Which parts of a JSON Schema apply to the same value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

_TOGETHER = ("allOf", "anyOf", "oneOf")


def schemas_by_value(root: Schema) -> Iterator[list[Schema]]:
    """For every place that a value may have, the schemas that may apply to it.

    Alternatives count as if they applied together, so a list may hold too many, and never too few
    of those that llguidance combines. What no value is under, such as an unused definition, is left
    out.
    """
    waiting: list[Sequence[Any]] = [[root]]
    seen: set[frozenset[int]] = set()
    while waiting:
        applying = _with_combined(waiting.pop(), root)
        key = frozenset(map(id, applying))
        if applying and key not in seen:
            seen.add(key)
            yield applying
            waiting += _under_properties(applying)
            waiting += _under_items(applying)


def referred(root: Any, ref: str) -> Any:
    """What a JSON pointer leads to; what is no pointer, or leads nowhere, llguidance judges."""
    found = root
    for key in ref.removeprefix("#").split("/")[1:]:
        key = key.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            return True
    return found if ref == "#" or ref.startswith("#/") else True


def object_under(schema: Schema, keyword: str) -> Schema:
    """An object under a keyword, empty where there is none."""
    found = schema.get(keyword)
    return found if isinstance(found, Mapping) else {}


def list_under(schema: Schema, keyword: str) -> list[Any]:
    """A list under a keyword, empty where there is none."""
    found = schema.get(keyword)
    return found if isinstance(found, list) else []


def matches(pattern: str, name: str) -> bool | None:
    """Whether a name has a pattern; None where Python does not know, and llguidance judges."""
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return None


def _with_combined(schemas: Sequence[Any], root: Schema) -> list[Schema]:
    """These schemas and what their keywords combine with them."""
    found: dict[int, Schema] = {}
    waiting = list(schemas)
    while waiting:
        schema = waiting.pop()
        if not isinstance(schema, Mapping) or id(schema) in found:
            continue
        found[id(schema)] = schema
        for keyword in _TOGETHER:
            waiting += list_under(schema, keyword)
        if isinstance(ref := schema.get("$ref"), str):
            waiting.append(referred(root, ref))
    return list(found.values())


def _under_properties(applying: Sequence[Schema]) -> Iterator[list[Any]]:
    patterns = [
        item for schema in applying for item in object_under(schema, "patternProperties").items()
    ]
    others = [schema.get("additionalProperties") for schema in applying]
    named: dict[str, list[Any]] = {}
    for schema in applying:
        for name, inner in object_under(schema, "properties").items():
            named.setdefault(name, []).append(inner)
    for name, inner in named.items():
        yield [
            *inner,
            *(under for pattern, under in patterns if matches(pattern, name) is not False),
        ]
    yield [*(under for _, under in patterns), *others]


def _under_items(applying: Sequence[Schema]) -> Iterator[list[Any]]:
    first = [
        list_under(schema, "prefixItems") or list_under(schema, "items") for schema in applying
    ]
    others = [
        schema.get(keyword) for schema in applying for keyword in ("items", "additionalItems")
    ]
    for inner in zip_longest(*first):
        yield [*inner, *others]
    yield others
