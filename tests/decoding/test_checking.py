"""Hostile constraints: bounded in time and memory, and refused with a reason."""

from __future__ import annotations

import time

import pytest

from alignpro_lite.decoding import checking
from alignpro_lite.decoding.constraint import Gbnf, JsonSchema
from alignpro_lite.errors import InputError


def deep(levels: int):
    schema: dict = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def circle():
    schema: dict = {}
    schema["items"] = schema
    return schema


def doubling(keyword: str, levels: int):
    """2**levels copies of one schema, by reference."""
    defs = {f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**defs, f"d{levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        (deep(5000), "levels"),
        (circle(), "levels"),
        ([1], "must be an object, found list"),
        ({"const": float("nan")}, "not JSON"),
        ({"const": {1, 2}}, "not JSON"),
        ({"enum": ["k" * 20] * 100_000}, "1,000,000"),
        (
            {"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(20_000)}},
            "large",
        ),
        ({"type": "string", "pattern": "(" * 5000}, "pattern"),
    ],
)
def test_a_hostile_schema_is_refused(schema, named):
    with pytest.raises(InputError, match=named):
        checking.require_keepable(JsonSchema(schema))


def test_what_never_ends_is_ended(monkeypatch):
    """Holds down: llguidance seeks a string that 20 patterns match longer than anybody waits."""
    monkeypatch.setattr(checking, "CHECK_SECONDS", 1.0)
    patterns = [{"type": "string", "pattern": f".*a.{{{n}}}b"} for n in range(20)]
    started = time.monotonic()
    with pytest.raises(InputError, match="took more than 1 seconds"):
        checking.require_keepable(JsonSchema({"allOf": patterns}))
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "constraint",
    [
        JsonSchema(doubling("allOf", 25)),
        JsonSchema({"type": "string", "pattern": "^((a{1,50}){1,50}){1,50}$"}),
        JsonSchema({"type": "string", "maxLength": 10**9}),
        JsonSchema({"type": "array", "minItems": 10**7}),
        JsonSchema({"enum": [f"k{n}" for n in range(3000)]}),
        Gbnf('root ::= ("a"{1000}){1000}'),
    ],
)
def test_what_is_only_large_is_taken(constraint):
    checking.require_keepable(constraint)


def test_a_constraint_is_checked_once(monkeypatch):
    checking.require_keepable(Gbnf('root ::= "once"'))
    monkeypatch.setattr(checking._checker, "ask", None)
    checking.require_keepable(Gbnf('root ::= "once"'))


def test_no_child_is_left_behind():
    checking.require_keepable(Gbnf('root ::= "left behind"'))
    assert checking._checker._process is None
