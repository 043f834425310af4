"""Records: tables of JSON and TOML files, read into frozen structs, key by key and type by type.

Everything the package reads settings from goes through `parse`: configurations, models.toml, the
sidecars of bundles, the cards of adapters, the rows of an evaluation. Nothing is converted: a
number in quotes is text, and true is not 1. Only a whole number may take the place of a float.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

import msgspec

from alignpro_lite.errors import AlignProError, without_secrets
from alignpro_lite.registry.allowed import (
    TablePlace,
    in_words,
    known_keys,
    missing_key,
    place_of,
)
from alignpro_lite.registry.text import decode_text

RecordT = TypeVar("RecordT")
_MAY_BE_SECRET = re.compile(
    r"(key|key_variable|token|secret|password|passwd|credentials?)$", re.IGNORECASE
)
"""Names of keys whose values no message shows."""
MAX_NESTING = 100
"""Of JSON: ten times what people write, and few enough for whatever walks through it later."""
ReadValue = Callable[[type, Any], Any]

Count = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
UnitInterval = Annotated[float, msgspec.Meta(ge=0, le=1)]
TokenId = Annotated[int, msgspec.Meta(ge=0)]
NonEmpty = Annotated[str, msgspec.Meta(min_length=1)]
Label = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]*\Z")]
"""What people call a part of a reward, a data set or a judge."""


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table: immutable, without unknown keys, each value of the type that its field states.

    Ranges are part of the annotations, which `parse` checks and the constructor does not. Rules
    about several fields are in `__post_init__`, which raises an `InputError`.
    """


@dataclass(frozen=True)
class Origin:
    """Where a table was read, and what its errors look like.

    Attributes:
        file: The file.
        error: The class of its errors.
        cure: What to do about any of them; None for a file that people write, where each error
            says what to correct.
        key: The table's own key in the file, dotted; empty for the whole file.
    """

    file: Path
    error: type[AlignProError]
    cure: str | None = None
    key: str = ""

    def at(self, *keys: str) -> Origin:
        """A table inside this one."""
        return replace(self, key=".".join(filter(None, (self.key, *keys))))

    def dotted(self, *keys: str) -> str:
        """A key below the table, as the file has it."""
        return self.at(*keys).key or "the file"

    def refusal(self, problem: str, cure: str) -> AlignProError:
        """The error that says so.

        Args:
            problem: The rest of a sentence that begins with the file.
            cure: What to do about it in a file that people write.
        """
        return self.error(f"{self.file}{problem}", self.cure or cure)

    def located(self, error: AlignProError) -> AlignProError:
        """What another part of the package found wrong with the table, with its place."""
        where = f", [{self.key}]" if self.key else ""
        return self.refusal(f"{where}: {error.problem}", error.cure)


def read_json(origin: Origin, what: str) -> dict[str, Any]:
    """Read a JSON file that holds a table.

    Args:
        origin: The file.
        what: What the folder around it is, for messages.

    Raises:
        AlignProError: Of the origin's class: it is missing or cannot be read, or is not a table.
    """
    file = origin.file
    if file.exists() and not file.is_file():  # to read a pipe is to wait for its writer
        raise origin.refusal(" must be a file, found something else.", "Replace it.")
    try:
        raw = json.loads(_text_of(origin, "JSON"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise origin.error(
            f"A {what} is a folder with a {file.name}, found none in {file.parent}.",
            origin.cure or "Check the path.",
        ) from error
    except OSError as error:
        raise origin.refusal(f" cannot be read ({error.strerror}).", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise origin.refusal(f" is not valid JSON ({error}).", "Correct it.") from error
    if not isinstance(raw, dict):
        raise origin.refusal(f" must hold a table, found {type(raw).__name__}.", "Correct it.")
    if is_nested_deeper(raw, MAX_NESTING):
        raise origin.refusal(f" is nested more than {MAX_NESTING} deep.", "Correct it.")
    return raw


def is_nested_deeper(value: Any, depth: int) -> bool:
    """Whether a value of JSON has more levels than `depth`."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)


def read_toml(origin: Origin, unreadable: str = "Check the path.") -> dict[str, Any]:
    """Read a TOML file whose numbers are all finite.

    Args:
        origin: The file.
        unreadable: What to do when it cannot be read.

    Raises:
        AlignProError: Of the origin's class: it cannot be read, or a number is not finite.
    """
    try:
        raw = tomllib.loads(_text_of(origin, "TOML"))
    except OSError as error:
        raise origin.refusal(f" cannot be read ({error.strerror}).", unreadable) from error
    except (ValueError, RecursionError) as error:
        raise origin.refusal(f" is not valid TOML: {error}.", "Correct that line.") from error
    for key, number in _not_finite(raw):
        raise origin.refusal(f": {key} must be a finite number, found {number}.", f"Correct {key}.")
    return raw


def _text_of(origin: Origin, form: str) -> str:
    raw = origin.file.read_bytes()
    try:
        return decode_text(raw)
    except ValueError as error:
        raise origin.refusal(f" is not valid {form}: {error}.", "Convert it to UTF-8.") from error


def parse(
    kind: type[RecordT], raw: Any, origin: Origin, read_value: ReadValue | None = None
) -> RecordT:
    """Make a record of a table, its inner tables included.

    Args:
        kind: The record.
        raw: What was read.
        origin: Where, for messages.
        read_value: Makes values of types that JSON does not have, such as `Path`, of what was
            read; takes the type and the value.

    Raises:
        AlignProError: Of the origin's class: a key is missing or unknown, or a value has another
            type or range; names the file, the key, the value and what is allowed.
    """
    try:
        return msgspec.convert(raw, kind, dec_hook=read_value)
    except msgspec.ValidationError as error:
        raise _refusal(place_of(kind, raw, str(error)), str(error), origin) from error
    except UnicodeEncodeError as error:  # JSON can spell halves of characters
        raise origin.refusal(
            f" holds {error.object!r:.80}, which is not text.", "Correct it."
        ) from error
    except AlignProError as error:
        raise origin.located(error) from error


def parse_written(kind: type[RecordT], raw: Any, origin: Origin) -> RecordT:
    """Make a record of a table that this package wrote: keys with a default must be there too.

    Raises:
        AlignProError: See `parse`.
    """
    record = parse(kind, raw, origin)
    _require_every_key(record, raw, origin)
    return record


def plain(record: Any) -> Any:
    """A record as JSON has it: tables, lists, text and numbers."""
    return json.loads(json.dumps(msgspec.to_builtins(record)))


def write_record(file: Path, record: Any) -> None:
    """Write a record as a JSON table."""
    text = json.dumps(msgspec.to_builtins(record), indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def near(name: str, names: Iterable[str]) -> str:
    """Return ` (near: a, b)` with the names most like `name`, or nothing."""
    matches = difflib.get_close_matches(name, sorted(set(names)), n=3, cutoff=0.5)
    return f" (near: {', '.join(matches)})" if matches else ""


def _refusal(place: TablePlace, message: str, origin: Origin) -> AlignProError:
    """What is wrong at a place of a table, in one sentence."""
    if name := missing_key(message):
        return _lacks(origin.at(*place.keys), name)
    keys = known_keys(place)
    if keys and isinstance(place.value, dict) and place.value.keys() - set(keys):
        return _does_not_know(origin.at(*place.keys), place.value, keys)
    key = origin.dotted(*place.keys)
    return origin.refusal(
        f": {key} must be {in_words(place.allowed)}, found {_shown(key, place.value)!r:.80}.",
        f"Correct {key}.",
    )


def _lacks(origin: Origin, name: str) -> AlignProError:
    key = origin.dotted(name)
    return origin.refusal(f" lacks the key {key}.", f"Add {key} = ...")


def _does_not_know(
    origin: Origin, table: Mapping[str, Any], keys: Collection[str]
) -> AlignProError:
    """The error for the first key of a table that is none of `keys`."""
    name = min(table.keys() - set(keys))
    return origin.refusal(
        f" has an unknown key {origin.dotted(name)} = {_shown(name, table[name])!r:.80}"
        f"{near(name, keys)}.",
        f"Remove or correct it; known keys: {', '.join(keys)}.",
    )


def _shown(key: str, value: Any) -> Any:
    """A value for a message, without what may be a key or a password, put where it does not belong.

    An address loses its user, password and query before it is cut to the length of a message.
    """
    if isinstance(value, dict):
        return {name: _shown(name, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shown(key, inner) for inner in value]
    if isinstance(value, str):
        return "***" if _MAY_BE_SECRET.search(key) else without_secrets(value)
    return value


def _require_every_key(record: Any, raw: Any, origin: Origin) -> None:
    """Compare the keys of a table, and of the tables in it, with those of its record."""
    if isinstance(record, tuple):
        for number, (item, written) in enumerate(zip(record, raw, strict=True)):
            _require_every_key(item, written, origin.at(str(number)))
    elif names := _keys(record):
        if missing := [name for name in names if name not in raw]:
            raise _lacks(origin, missing[0])
        if raw.keys() - set(names):
            raise _does_not_know(origin, raw, names)
        for name, value in raw.items():
            _require_every_key(getattr(record, name, None), value, origin.at(name))


def _keys(record: Any) -> tuple[str, ...]:
    """The keys that a record is written with; none for other values."""
    if isinstance(record, msgspec.Struct):
        tag = record.__struct_config__.tag_field
        return (*((tag,) if tag else ()), *record.__struct_fields__)
    return tuple(field.name for field in fields(record)) if is_dataclass(record) else ()


def _not_finite(raw: Any, *keys: str) -> Iterator[tuple[str, float]]:
    """The dotted key of each number that is NaN or infinite, and the number."""
    if isinstance(raw, float) and not math.isfinite(raw):
        yield ".".join(keys), raw
    elif isinstance(raw, dict | list):
        for key, value in raw.items() if isinstance(raw, dict) else enumerate(raw):
            yield from _not_finite(value, *keys, str(key))
