"""200 JSON schemas of the kinds that the public test suite has.

Those that are kept, by keyword, and those that are refused, by what the error names.
"""

from __future__ import annotations

from itertools import product
from typing import Any

Schema = dict[str, Any]


def _object(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _exactly(**properties: Any) -> Schema:
    return _object(**properties) | {"required": list(properties)}


TREE: Schema = {
    "$defs": {
        "node": _exactly(
            value={"type": "integer"},
            next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        )
    },
    "$ref": "#/$defs/node",
}
ENDLESS: Schema = {
    "$defs": {"node": _exactly(next={"$ref": "#/$defs/node"})},
    "$ref": "#/$defs/node",
}
_SIMPLE: tuple[Any, ...] = ("string", "integer", "number", "boolean", "null", "object", "array")
_BOUNDS = [
    {low: 2, high: 7.5}
    for low, high in product(("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum"))
]
_PATTERNS = (
    "^a",
    "b$",
    "^[ab]*$",
    "a|b",
    r"^\d{3}-\d{4}$",
    "^.{2}$",
    r"\w",
    "[^a]",
    "^(ab)?$",
    "é",
)
_FORMATS = (
    "date",
    "time",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
    "uri",
)
_VALUES: tuple[Any, ...] = (
    "a",
    "",
    'é"\\\n',
    0,
    -1,
    2.5,
    True,
    None,
    [],
    [1, "a"],
    {},
    {"a": {"b": 1}},
)
_NAMES = ("a", "a b", 'a"b', "a\\b", "é", "a\nb", "__proto__", "$ref", "1")

KEPT: dict[str, list[Schema]] = {
    "type": [
        *({"type": kind} for kind in _SIMPLE),
        *({"type": kinds} for kinds in (["string", "null"], ["integer", "array"], [*_SIMPLE])),
        {},
    ],
    "enum": [
        {"enum": [*_VALUES]},
        {"enum": [1, "a"], "type": "string"},
        {"enum": [1]},
        {"enum": [1, 5, 10], "minimum": 4},
        {"enum": ["ab", "c"], "minLength": 2},
    ],
    "const": [{"const": value} for value in _VALUES],
    "properties": [_exactly(**{name: {"type": "integer"}}) for name in _NAMES]
    + [
        {"properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"a": {"type": "string"}, "b": False}},
        _object(a={"type": "null"}, b={"type": "boolean"}, c=_object(d={"type": "integer"})),
        _object(a=True, b={}),
    ],
    "required": [
        {"type": "object", "required": ["z"]},
        {"type": "object", "properties": {"b": {"const": 1}, "a": {"const": 2}}, "required": ["a"]},
        {"type": "object", "required": ["b", "a"], "additionalProperties": {"type": "null"}},
        {"required": ["a"]},
    ],
    "additionalProperties": [
        {"type": "object", "additionalProperties": False},
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {"const": 1}}, "additionalProperties": {"const": 2}},
        {"additionalProperties": {"minLength": 2}},
    ],
    "patternProperties": [
        {"type": "object", "patternProperties": {"^a": {"type": "integer"}}},
        {
            "type": "object",
            "patternProperties": {"^a": {"type": "integer"}, "^b": {"type": "null"}},
            "additionalProperties": False,
        },
        _object(ab={"type": "integer"}) | {"patternProperties": {"^a": {"minimum": 5}}},
        {"patternProperties": {"a": {"const": 1}}, "additionalProperties": {"type": "string"}},
    ],
    "minProperties": [
        {"type": "object", "minProperties": 2},
        {"type": "object", "minProperties": 1, "maxProperties": 2},
        {"type": "object", "maxProperties": 0},
        _object(a={}, b={}) | {"minProperties": 1, "maxProperties": 1},
    ],
    "items": [
        *({"type": "array", "items": {"type": kind}} for kind in _SIMPLE),
        {"items": {"enum": [1, 2]}},
        {"type": "array", "items": False},
        {"type": "array", "items": True},
        {"type": "array", "items": {"type": "array", "items": {"const": 1}, "minItems": 1}},
    ],
    "prefixItems": [
        {"type": "array", "prefixItems": [{"type": "string"}, {"type": "null"}]},
        {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        {"type": "array", "prefixItems": [{"const": 1}], "items": {"const": 2}, "minItems": 3},
        {"prefixItems": [{}, {"type": "integer"}], "minItems": 1, "maxItems": 2},
    ],
    "minItems": [
        {"type": "array", "minItems": low, "maxItems": high, "items": {"const": 1}}
        for low, high in ((0, 0), (0, 1), (1, 1), (2, 3), (5, 9))
    ]
    + [{"type": "array", "minItems": 2}, {"maxItems": 1}],
    "minLength": [
        {"type": "string", "minLength": low, "maxLength": high}
        for low, high in ((0, 0), (0, 1), (1, 1), (2, 5), (3, 40))
    ]
    + [{"type": "string", "minLength": 3}, {"maxLength": 2}, {"minLength": 1}]
    + [{"type": "string", "minLength": 2, "pattern": "^a*$"}],
    "pattern": [{"type": "string", "pattern": pattern} for pattern in _PATTERNS],
    "format": [{"type": "string", "format": name} for name in _FORMATS],
    "minimum": [{"type": kind, **bounds} for kind in ("number", "integer") for bounds in _BOUNDS]
    + [{"type": "number", name: bound} for name in ("minimum", "maximum") for bound in (-0.5, 0, 3)]
    + [{"type": "integer", "exclusiveMinimum": bound} for bound in (-10, 0, 99)]
    + [{"minimum": 3}, {"type": "number", "minimum": 1e-7, "maximum": 2e-7}],
    "multipleOf": [{"type": "integer", "multipleOf": factor} for factor in (1, 2, 7, 10)]
    + [{"type": "number", "multipleOf": factor} for factor in (0.5, 0.01)]
    + [{"type": "integer", "multipleOf": 5, "minimum": 12, "maximum": 40}],
    "anyOf": [
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}], "minLength": 3, "minimum": 10},
        {"anyOf": [_exactly(a={"const": 1}), _exactly(b={"const": 2})]},
        {
            "type": "object",
            "properties": {"a": {"minLength": 2}},
            "anyOf": [{"required": ["a"]}, {"properties": {"a": {"type": "string"}}}],
        },
    ],
    "oneOf": [
        {"oneOf": [{"type": "string"}, {"type": "integer"}]},
        {"oneOf": [_exactly(kind={"const": "x"}), _exactly(kind={"const": "y"})]},
    ],
    "allOf": [
        {"allOf": [{"type": "string"}, {"minLength": 2}, {"maxLength": 4}]},
        {"allOf": [_object(a={"type": "string"}), {"required": ["a"]}]},
        {"allOf": [{"enum": [1, 2]}, {"enum": [2, 3]}]},
        {"allOf": [{"multipleOf": 4}, {"multipleOf": 6}], "type": "integer"},
        {"allOf": [{"anyOf": [{"const": 1}, {"const": "a"}]}, {"type": "integer"}]},
    ],
    "$ref": [
        TREE,
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}, "minLength": 3},
        {"$ref": "#/definitions/a", "definitions": {"a": {"type": "boolean"}}},
        {"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"const": 1}}},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "boolean"}}},
        _object(a={"$ref": "#"}),
        {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"const": 1}}, "$ref": "#/$defs/a"},
    ],
    "several": [
        _exactly(
            name={"type": "string", "minLength": 1, "maxLength": 40},
            born={"type": "string", "format": "date"},
            height={"type": "number", "exclusiveMinimum": 0, "maximum": 3},
            tags={"type": "array", "items": {"enum": ["x", "y"]}, "maxItems": 3},
            home={"anyOf": [{"type": "null"}, _exactly(city={"type": "string"})]},
        ),
        {"type": "array", "items": _exactly(id={"type": "integer", "minimum": 1}), "minItems": 1},
        _exactly(rows={"type": "array", "items": {"type": "array", "items": {"type": "number"}}}),
    ],
    "annotations": [
        {"type": "string", "title": "t", "description": "d", "default": 1, "examples": [1]},
        {
            "type": "integer",
            "$comment": "c",
            "deprecated": True,
            "readOnly": True,
            "writeOnly": True,
        },
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://a.b/c",
            "const": 1,
        },
        {"type": "string", "contentMediaType": "text/plain", "contentEncoding": "base64"},
        {"type": "string", "minimum": 3, "required": ["a"], "unknown-keyword": 1},
    ],
}

REFUSED: dict[str, list[Schema]] = {
    "not": [{"not": {"type": "string"}}, {"type": "integer", "not": {"const": 1}}],
    "uniqueItems": [{"uniqueItems": True}, _object(a={"type": "array", "uniqueItems": True})],
    "contains": [{"type": "array", "contains": {"const": 1}}],
    "minContains": [{"minContains": 2}, {"contains": {}, "maxContains": 3, "minContains": 0}],
    "if": [{"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"minimum": 2}}],
    "dependentRequired": [{"dependentRequired": {"a": ["b"]}}],
    "dependentSchemas": [{"dependentSchemas": {"a": {"required": ["b"]}}}],
    "dependencies": [{"dependencies": {"a": ["b"]}}],
    "propertyNames": [{"propertyNames": {"pattern": "^a"}}],
    "unevaluatedProperties": [{"unevaluatedProperties": False}],
    "unevaluatedItems": [{"unevaluatedItems": False}],
    "$dynamicRef": [{"$dynamicRef": "#a"}],
    "oneOf": [
        {"oneOf": [{"type": "integer"}, {"type": "number"}]},
        {"oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
    ],
    "patternProperty": [{"patternProperties": {"^a": {"type": "integer"}, "b$": {"type": "null"}}}],
    "maxProperties": [
        {
            "type": "object",
            "properties": {"a": {}, "b": {}},
            "minProperties": 1,
            "maxProperties": 2,
        },
        {"type": "object", "required": ["a"], "maxProperties": 0},
    ],
    "pattern": [{"pattern": "^(?=a)b"}, {"pattern": r"^(a)\1$"}, {"pattern": "("}],
    "format": [{"format": "regex-of-mine"}],
    "type": [{"type": "frog"}, {"allOf": [{"type": "string"}, {"type": "integer"}]}],
    "$ref": [
        {"$ref": "http://127.0.0.1:9/a.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "#"},
        ENDLESS,
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    ],
    "minItems": [{"type": "array", "minItems": 3, "maxItems": 2}],
    "minLength": [{"type": "string", "minLength": 3, "maxLength": 2}],
    "required": [{"type": "object", "required": ["a"], "additionalProperties": False}],
    "exclusiveMinimum": [{"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}],
    "exclusiveMaximum": [
        {
            "allOf": [{"$ref": "#/$defs/a"}, {"minimum": -0.5}],
            "$defs": {"a": {"exclusiveMaximum": 0}},
        }
    ],
    "integer": [{"type": "integer", "minimum": 1.2, "maximum": 1.8}],
    "x-guidance": [{"x-guidance": {"lenient": True}, "uniqueItems": True}],
}
