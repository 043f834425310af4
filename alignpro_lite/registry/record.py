"""Records: JSON files that are read into frozen dataclasses, key by key and type by type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from alignpro_lite.errors import BundleError, InputError

T = TypeVar("T")


def read_table(file: Path, what: str, cure: str) -> dict[str, Any]:
    """Read a JSON file that holds a table.

    Args:
        file: The file.
        what: What the folder around it is, for messages.
        cure: What the user can do when it is missing or damaged.

    Raises:
        BundleError: It is missing, or no table.
    """
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BundleError(
            f"A {what} is a folder with a {file.name}, found none in {file.parent}.", cure
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON ({error}).", cure) from error
    if not isinstance(raw, dict):
        raise BundleError(f"{file} must hold a table, found {type(raw).__name__}.", cure)
    return raw


def require_format(raw: Mapping[str, Any], version: int, file: Path, cure: str) -> None:
    """Refuse a table whose `format` is another version.

    Raises:
        BundleError: It is.
    """
    found = raw.get("format")
    if found != version:
        raise BundleError(
            f"{file} must have format {version}, found {found!r}.",
            f"{cure[:-1]}, or upgrade alignpro-lite if it is newer.",
        )


def parse_record(kind: type[T], raw: Any, file: Path, cure: str) -> T:
    """Make a dataclass of a JSON table, its inner tables included.

    Args:
        kind: The dataclass. Each of its fields must be there, and nothing else.
        raw: What `json` read.
        file: Where it was read, for messages.
        cure: What the user can do about a wrong value.

    Raises:
        BundleError: A key is missing or unknown, or a value has another type or range.
    """
    what = kind.__name__.lower()
    _require_keys(raw, kind, what, file, cure)
    values = {}
    for key, expected in get_type_hints(kind).items():
        if not _is_a(raw[key], expected):
            raise BundleError(
                f"{file}: {key!r} of {what} must be {expected}, found {raw[key]!r:.80}.", cure
            )
        values[key] = _value(raw[key], expected, file, cure)
    try:
        return kind(**values)
    except InputError as error:
        raise BundleError(f"{file}: {error.problem}", cure) from error


def write_record(file: Path, record: Any) -> None:
    """Write a dataclass as a JSON table."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _require_keys(raw: Any, kind: type, what: str, file: Path, cure: str) -> None:
    if not isinstance(raw, dict):
        raise BundleError(f"{file}: {what} must be a table, found {type(raw).__name__}.", cure)
    expected = {field.name for field in fields(cast(Any, kind))}
    if unknown := sorted(raw.keys() - expected):
        raise BundleError(f"{file}: {what} has an unknown key {unknown[0]!r}.", cure)
    if missing := sorted(expected - raw.keys()):
        raise BundleError(f"{file}: {what} lacks the key {missing[0]!r}.", cure)


def _value(raw: Any, expected: Any, file: Path, cure: str) -> Any:
    """A JSON value that fits the type of a field, as that type."""
    if get_origin(expected) is UnionType and raw is not None:
        expected = next(part for part in get_args(expected) if _is_a(raw, part))
    if is_dataclass(expected):
        return parse_record(cast(type, expected), raw, file, cure)
    if get_origin(expected) is tuple:
        item = get_args(expected)[0]
        return tuple(_value(value, item, file, cure) for value in raw)
    return raw


def _is_a(value: Any, expected: Any) -> bool:
    """Whether a JSON value fits the type of a field."""
    origin, parts = get_origin(expected), get_args(expected)
    if expected is Any:
        return True
    if origin is Literal:
        return value in parts
    if origin is UnionType:
        return any(_is_a(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, list) and _are_all(value, parts)
    if origin is Mapping:
        return isinstance(value, dict) and all(_is_a(item, parts[1]) for item in value.values())
    if is_dataclass(expected):
        return isinstance(value, dict)
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected)


def _are_all(values: list[Any], parts: tuple[Any, ...]) -> bool:
    """Whether a JSON list fits `tuple[part, ...]` or `tuple[part, part]`, all parts alike."""
    if parts[-1] is Ellipsis:
        return all(_is_a(value, parts[0]) for value in values)
    return len(values) == len(parts) and all(map(_is_a, values, parts))
