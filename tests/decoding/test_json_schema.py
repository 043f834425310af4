"""Schemas that are refused before llguidance sees them, and those that only look alike."""

from __future__ import annotations

import pytest

from alignpro_lite.decoding.json_schema import require_keepable_schema
from alignpro_lite.decoding.schema_values import schemas_by_value
from alignpro_lite.errors import InputError

ABOVE = {"type": "number", "exclusiveMinimum": 0}
BELOW = {"type": "number", "maximum": 0.5}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [ABOVE, BELOW]},
        {"properties": {"a": ABOVE}, "allOf": [{"properties": {"a": BELOW}}]},
        {"properties": {"a": ABOVE}, "patternProperties": {"^a": BELOW}},
        {
            "properties": {"a": ABOVE},
            "$ref": "#/$defs/b",
            "$defs": {"b": {"properties": {"a": BELOW}}},
        },
        {"items": ABOVE, "allOf": [{"prefixItems": [{}, BELOW]}]},
        {"$ref": "#/$defs/b", "$defs": {"b": {"allOf": [ABOVE, BELOW, {"$ref": "#/$defs/b"}]}}},
    ],
)
def test_bounds_of_one_value_are_read_together(schema):
    with pytest.raises(InputError, match="less than 1 from it"):
        require_keepable_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        {
            "properties": {"price": ABOVE, "share": BELOW, "unit": {"$ref": "#/$defs/u"}},
            "$defs": {"u": {"type": "string"}},
        },
        {"properties": {"a": ABOVE, "b": BELOW}, "patternProperties": {"^c": {"type": "string"}}},
        {"properties": {"a": ABOVE}, "patternProperties": {"^b": BELOW}},
        {"prefixItems": [ABOVE, BELOW]},
        {"anyOf": [{"properties": {"a": ABOVE}}, {"properties": {"b": BELOW}}]},
    ],
)
def test_bounds_of_different_values_are_not_mixed(schema):
    """A price above 0 beside a share of at most 0.5 was refused wherever there was a $ref."""
    require_keepable_schema(schema)


def test_what_many_references_share_is_read_once():
    """Every place with a $ref read the whole schema again, and 1,600 of them took too long."""
    schema = {
        "properties": {f"p{number}": {"$ref": "#/$defs/u"} for number in range(50)},
        "$defs": {"u": {"type": "object", "properties": {"v": ABOVE}}},
    }
    groups = list(schemas_by_value(schema))
    assert len(groups) == 1 + 50 + 1, "the whole, its properties, and what they share"
