"""What a JSON Schema needs beyond llguidance, which keeps it: its limits, and two gaps closed.

llguidance refuses every keyword that it cannot keep, and names it. What is refused here it would
take: options that switch that off, numbers that it draws wrongly, and recursion without an end.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignpro_lite.decoding.schema_values import (
    Schema,
    list_under,
    matches,
    object_under,
    referred,
    schemas_by_value,
)
from alignpro_lite.errors import InputError

_MOST_CHARACTERS = 1_000_000
_DEEPEST = 64
_OPTIONS = "x-guidance"
_TOKENS = re.compile(r"\\.|\[\^?\]?|&&|--|~~|.", re.DOTALL)
"""Of a pattern, as far as its classes are concerned; a ] that comes first in one is a character."""
_SIMPLE = {"string", "number", "integer", "boolean", "null"}


def schema_text(schema: Mapping[str, Any]) -> str:
    """A schema as JSON.

    Raises:
        InputError: It is no JSON object, or too large or too deep.
    """
    if not isinstance(schema, Mapping):
        raise InputError(
            f"A JSON schema must be an object, found {type(schema).__name__}.",
            'Pass one such as {"type": "object"}.',
        )
    try:
        _require_shallow(schema, 0)
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"The schema is not JSON ({error}).", "Correct it.") from error
    if len(text) > _MOST_CHARACTERS:
        raise InputError(
            f"A JSON schema has at most {_MOST_CHARACTERS:,} characters, found {len(text):,}.",
            "Shorten it.",
        )
    return text


def _require_shallow(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise InputError(
            f"A JSON schema has at most {_DEEPEST} levels, found more.",
            "Name the inner ones in $defs and refer to them.",
        )
    for inner in _inside(value):
        _require_shallow(inner, depth + 1)


def _inside(value: Any) -> Iterator[Any]:
    """What an object or an array of JSON holds."""
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple):
        yield from value


def require_keepable_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what llguidance would take and not keep.

    Raises:
        InputError: Names the keyword.
    """
    schemas = [place for place in _everything(schema) if isinstance(place, Mapping)]
    if any(_OPTIONS in place for place in schemas):
        raise _refused(f"{_OPTIONS} is no keyword of JSON Schema")
    for together in schemas_by_value(schema):
        _require_plain_bounds(together)
    for place in schemas:
        _require_one_kind_of_items(place)
        for pattern in _patterns(place):
            _require_plain_classes(pattern)
    if not _ends(schema, _ending_references(schema, schemas)):
        raise _refused("its $ref leads to itself again and again, so no JSON is valid")


def _refused(reason: str) -> InputError:
    return InputError(
        f"The JSON schema cannot be kept: {reason}.",
        "Leave that keyword out or express it otherwise; docs/structured.md lists what is kept.",
    )


def _everything(value: Any) -> Iterator[Any]:
    """A value of JSON and all that it holds."""
    yield value
    for inner in _inside(value):
        yield from _everything(inner)


def _require_plain_bounds(together: Sequence[Schema]) -> None:
    """Refuse an open interval from or to an integer that holds no other integer, such as (0, 0.5].

    llguidance 1.9.1 draws that integer too.

    Args:
        together: Schemas that apply to one value.
    """
    bounds: dict[str, set[Any]] = {
        keyword: set(filter(_is_number, (found.get(keyword) for found in together)))
        for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
    }
    upper = bounds["maximum"] | bounds["exclusiveMaximum"]
    lower = bounds["minimum"] | bounds["exclusiveMinimum"]
    for keyword, others in (("exclusiveMinimum", upper), ("exclusiveMaximum", lower)):
        for bound in bounds[keyword]:
            near = [other for other in others if 0 < abs(other - bound) < 1]
            if bound == math.floor(bound) and near:
                raise _refused(f"{keyword} {bound} with a bound at {near[0]}, less than 1 from it")


def _require_one_kind_of_items(place: Mapping[str, Any]) -> None:
    """Refuse two lists of first items, of which llguidance passes one over."""
    if isinstance(place.get("items"), list) and "prefixItems" in place:
        raise _refused("prefixItems stands beside a list of items, which is its older name")


def _patterns(place: Mapping[str, Any]) -> Iterator[str]:
    """The patterns of a schema, without those inside it."""
    if isinstance(pattern := place.get("pattern"), str):
        yield pattern
    if isinstance(named := place.get("patternProperties"), Mapping):
        yield from named


def _require_plain_classes(pattern: str) -> None:
    """Refuse operations on sets of characters: in ECMA-262, `[[a]]` has no set inside a set.

    llguidance reads it so, and would write `a` where that means `[]`.
    """
    is_inside = False
    for token in _TOKENS.findall(pattern):
        if is_inside and (token[0] == "[" or token in ("&&", "--", "~~")):
            found = token.rstrip("^]")
            raise _refused(f"pattern {pattern!r:.80} has {found} inside [...] without a backslash")
        is_inside = token[0] == "[" or (is_inside and token != "]")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _ending_references(schema: Any, schemas: Sequence[Mapping[str, Any]]) -> set[str]:
    """The references inside a schema to what at least one finite value is valid under."""
    asked = {place["$ref"] for place in schemas if isinstance(place.get("$ref"), str)}
    known: set[str] = set()
    while found := {ref for ref in asked - known if _ends(referred(schema, ref), known)}:
        known |= found
    return known


def _ends(schema: Any, known: set[str]) -> bool:
    """Whether a finite value may be valid, if one is under some references; True where unsure."""
    if not isinstance(schema, Mapping) or "const" in schema or "enum" in schema:
        return True
    if isinstance(ref := schema.get("$ref"), str) and ref not in known:
        return False
    if not all(_ends(part, known) for part in list_under(schema, "allOf")):
        return False
    for keyword in ("anyOf", "oneOf"):
        alternatives = list_under(schema, keyword)
        if alternatives and not any(_ends(part, known) for part in alternatives):
            return False
    types = schema.get("type", "null")
    types = [types] if isinstance(types, str) else types
    if not types or not isinstance(types, list) or _SIMPLE.intersection(map(str, types)):
        return True
    ways = {"object": _object_ends, "array": _array_ends}
    return any(ways[kind](schema, known) if kind in ways else True for kind in types)


def _object_ends(schema: Mapping[str, Any], known: set[str]) -> bool:
    named, patterns = (
        object_under(schema, keyword) for keyword in ("properties", "patternProperties")
    )
    others = schema.get("additionalProperties", True)
    required = [name for name in list_under(schema, "required") if isinstance(name, str)]

    def value_ends(name: str) -> bool:
        under = [inner for pattern, inner in patterns.items() if matches(pattern, name)]
        under += [named[name]] if name in named else []
        return all(_ends(part, known) for part in under or [others])

    least = schema.get("minProperties")
    needs_more = isinstance(least, int) and least > len({*named, *required})
    further_end = any(_ends(part, known) for part in [*patterns.values(), others])
    return all(map(value_ends, required)) and (further_end or not needs_more)


def _array_ends(schema: Mapping[str, Any], known: set[str]) -> bool:
    least = schema.get("minItems")
    least = least if isinstance(least, int) else 0
    first, others = list_under(schema, "prefixItems"), schema.get("items", True)
    if isinstance(others, list):
        first, others = others, schema.get("additionalItems", True)
    rest = [others] if least > len(first) else []
    return all(_ends(part, known) for part in [*first[:least], *rest])
