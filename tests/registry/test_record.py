"""Records: what is written is read back, and whatever else a file holds is named and refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from alignpro_lite.errors import BundleError, InputError, RegistryError
from alignpro_lite.registry.record import (
    Count,
    NonEmpty,
    Origin,
    Positive,
    Record,
    parse,
    parse_written,
    plain,
    read_json,
    read_toml,
    write_record,
)

FILE = Path("/somewhere/settings.toml")
ORIGIN = Origin(FILE, InputError)


class Part(Record):
    share: Positive
    name: NonEmpty = "part"


class Left(Record, tag_field="kind", tag="left"):
    turns: Annotated[int, Meta(ge=0, lt=9)] = 1


class Right(Record, tag_field="kind", tag="right"):
    path: str


class Whole(Record, kw_only=True):
    count: Count
    level: float = 0.5
    flag: bool = False
    mode: Literal["soft", "hard"] = "soft"
    note: str | None = None
    part: Part
    side: Left | Right = Left()
    parts: tuple[Part, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    weights: Annotated[Mapping[str, float], Meta(min_length=1)]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8"))
PARTS = st.builds(Part, FINITE.filter(lambda number: number > 0), TEXT.filter(bool))
WHOLES = st.builds(
    Whole,
    count=st.integers(1),
    level=FINITE,
    flag=st.booleans(),
    mode=st.sampled_from(["soft", "hard"]),
    note=st.none() | TEXT,
    part=PARTS,
    side=st.builds(Left, st.integers(0, 8)) | st.builds(Right, TEXT),
    parts=st.lists(PARTS, max_size=2).map(tuple),
    pair=st.tuples(FINITE, FINITE),
    weights=st.dictionaries(TEXT, FINITE, min_size=1, max_size=2),
)
WRONG = {bool: 1, int: True, float: "1", str: 3, type(None): 3, list: "items", dict: 3}
"""By the type that a value has, another one that must not be taken for it."""
GOOD = Whole(count=1, part=Part(1.0), parts=(Part(2.0), Part(3.0)), weights={"a": 1.0})


@given(WHOLES)
def test_a_record_survives_json(record):
    text = json.dumps(plain(record))
    assert parse(Whole, json.loads(text), ORIGIN) == record
    assert parse_written(Whole, json.loads(text), ORIGIN) == record


@given(WHOLES)
def test_a_record_survives_its_file(tmp_path_factory, record):
    origin = Origin(tmp_path_factory.mktemp("record") / "record.json", BundleError)
    write_record(origin.file, record)
    assert parse_written(Whole, read_json(origin, "folder"), origin) == record


def places(table, *keys):
    """The keys of every value of a table, down to the entries of mappings."""
    for key, value in table.items() if isinstance(table, dict) else enumerate(table):
        yield (*keys, key)
        if isinstance(value, dict | list):
            yield from places(value, *keys, key)


def around(table, keys):
    for key in keys[:-1]:
        table = table[key]
    return table


def refusal(raw, read=parse) -> InputError:
    with pytest.raises(InputError) as caught:
        read(Whole, raw, ORIGIN)
    assert caught.value.problem.startswith(str(FILE))
    assert caught.value.cure
    return caught.value


@given(WHOLES, st.data())
def test_a_wrong_type_is_named_with_file_key_and_value(record, data):
    raw = plain(record)
    keys = data.draw(st.sampled_from(list(places(raw))))
    table = around(raw, keys)
    wrong = WRONG[type(table[keys[-1]])]
    table[keys[-1]] = wrong
    shown = keys[:1] if keys[0] == "weights" else keys  # of a mapping, the whole is shown
    value = raw["weights"] if keys[0] == "weights" else wrong
    key = ".".join(map(str, shown))
    found = refusal(raw)
    assert found.problem.startswith(f"{FILE}: {key} must be ")
    assert found.problem.endswith(f", found {value!r:.80}.")


FIELDS = {*Whole.__struct_fields__, *Part.__struct_fields__, "kind", "turns", "path"}


@given(WHOLES, TEXT.filter(lambda name: name and name not in FIELDS), st.data())
def test_an_unknown_key_is_named_with_file_key_and_value(record, name, data):
    raw = plain(record)
    tables = [(), ("part",), ("side",), *(("parts", number) for number in range(len(record.parts)))]
    keys = (*data.draw(st.sampled_from(tables)), name)
    around(raw, keys)[name] = "surprise"
    for read in (parse, parse_written):
        problem = refusal(raw, read).problem
        assert f"has an unknown key {'.'.join(map(str, keys))} = 'surprise'" in problem


REQUIRED = [("count",), ("part",), ("weights",), ("part", "share"), ("parts", 0, "share")]


@pytest.mark.parametrize("keys", REQUIRED)
def test_a_missing_key_is_named_with_its_file(keys):
    raw = plain(GOOD)
    del around(raw, keys)[keys[-1]]
    key = ".".join(map(str, keys))
    found = refusal(raw)
    assert found.problem == f"{FILE} lacks the key {key}."
    assert found.cure == f"Add {key} = ..."


KEYS = [keys for keys in places(plain(GOOD)) if keys[-1] != "a" and not isinstance(keys[-1], int)]


@pytest.mark.parametrize("keys", KEYS)
def test_what_was_written_has_every_key(keys):
    """A default is for people; a file of ours without a key is damaged or of another version."""
    raw = plain(GOOD)
    del around(raw, keys)[keys[-1]]
    key = ".".join(map(str, keys))
    assert refusal(raw, parse_written).problem == f"{FILE} lacks the key {key}."


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"side": {"kind": "up"}}, ': side.kind must be "left" or "right", found \'up\'.'),
        ({"side": {"kind": 3}}, ': side.kind must be "left" or "right", found 3.'),
        ({"side": {}}, " lacks the key side.kind."),
        ({"side": {"kind": "left", "path": ""}}, " has an unknown key side.path = ''."),
        ({"side": {"kind": "left", "turns": 9}}, "at least 0 and below 9, found 9."),
        ({"mode": "sott"}, ': mode must be "hard" or "soft", found \'sott\'.'),
        ({"mdoe": "soft"}, " has an unknown key mdoe = 'soft' (near: mode"),
        ({"pair": [1]}, ": pair must be a list of 2, each item a number, found [1]."),
        ({"weights": {}}, ": weights must be a table that is not empty, each value a number, "),
        ({"part": {"share": 1, "name": ""}}, ": part.name must be text that is not empty, "),
        ({"level": 10**400}, ": level must be a number, found 1000000"),
        ({"note": {"\ud800": 1}}, ": note must be text, found "),
        ({"\ud800": 1}, " holds '\\ud800', which is not text."),
    ],
)
def test_a_refusal_says_what_is_allowed(change, problem):
    raw = copy.deepcopy(plain(GOOD)) | change
    assert problem in refusal(raw).problem


@pytest.mark.parametrize("raw", [None, 3, "text", [], [1]])
def test_what_is_not_a_table_is_refused(raw):
    assert refusal(raw).problem == f"{FILE}: the file must be a table, found {raw!r}."


@dataclass(frozen=True)
class Checked:
    low: int
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InputError("low must not be above high.", "Lower low.")


class Holder(Record):
    checked: Checked


def test_a_rule_over_several_fields_is_told_with_the_file():
    with pytest.raises(RegistryError) as caught:
        parse(Holder, {"checked": {"low": 10}}, Origin(FILE, RegistryError, key="holder"))
    assert caught.value.problem == f"{FILE}, [holder]: low must not be above high."
    assert caught.value.cure == "Lower low."


def test_a_dataclass_in_a_record_refuses_unknown_and_missing_keys_too():
    assert parse_written(Holder, {"checked": {"low": 1, "high": 2}}, ORIGIN) == Holder(
        Checked(1, 2)
    )
    with pytest.raises(InputError, match=r"unknown key checked\.hihg = 1 \(near: high\)"):
        parse_written(Holder, {"checked": {"low": 1, "high": 2, "hihg": 1}}, ORIGIN)
    with pytest.raises(InputError, match=r"lacks the key checked\.high"):
        parse_written(Holder, {"checked": {"low": 1}}, ORIGIN)


def test_a_file_that_no_one_writes_by_hand_has_one_cure():
    origin = Origin(FILE, BundleError, "Make it again.")
    with pytest.raises(BundleError) as caught:
        parse(Whole, {}, origin)
    assert caught.value.cure == "Make it again."


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_is_named(tmp_path, number):
    origin = Origin(tmp_path / "c.toml", InputError)
    origin.file.write_text(f"[a]\nb = [1, {{ c = {number} }}]\n")
    with pytest.raises(
        InputError, match=rf"c.toml: a.b.1.c must be a finite number, found {number}"
    ):
        read_toml(origin)
