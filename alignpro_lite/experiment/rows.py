"""Rows of JSON data: each one read or counted as bad, with its number and the reason.

Too many bad rows stop the reading, because then the format is the mistake.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from alignpro_lite.errors import InputError

MAX_BAD_SHARE = 0.05
"""Share of rows that may be unreadable."""

Row = Mapping[str, Any]
T = TypeVar("T")


def read_rows(path: Path, reader: Callable[[Row], T]) -> tuple[list[T], list[str]]:
    """Read every row of a file.

    Args:
        path: A JSON array or JSON lines, plain or gzipped.
        reader: Makes a value of a row, or raises BadRowError.

    Returns:
        The values, and a sentence for every row that is left out: its number, counted from 1 and in
        a file of lines that of its line, with what was expected and what was found.

    Raises:
        InputError: The file cannot be read, or more than MAX_BAD_SHARE of its rows.
    """
    rows: list[T] = []
    bad: list[str] = []
    for number, raw in _raw_rows(path):
        try:
            rows.append(reader(_mapping(raw)))
        except BadRowError as error:
            bad.append(f"row {number} left out, {error}.")
    total = len(rows) + len(bad)
    if not rows or len(bad) > MAX_BAD_SHARE * total:
        first = f" The first: {bad[0]}" if bad else ""
        raise InputError(
            f"{path} must hold readable rows, found {len(bad)} bad ones of {total}.{first}",
            "Check that `format` names the format of this file.",
        )
    return rows, bad


class BadRowError(Exception):
    """One row cannot be used."""


def _raw_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a JSON array or of JSON lines, numbered from 1; a bad line comes as its text."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}).", "Check the path.") from error
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), start=1)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is not valid JSON ({error}).", "Correct the file.") from error
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError):
                yield number, line


def _mapping(raw: Any) -> Row:
    if not isinstance(raw, dict):
        raise BadRowError(f"expected an object, found {type(raw).__name__}")
    return raw


def text_of(row: Row, key: str) -> str:
    """The text under a key; BadRowError if it is missing, blank or not text."""
    value = row.get(key)
    if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
        raise BadRowError(f"expected text under {key!r}, found {str(value)[:40]!r}")
    return value


def optional_text_of(row: Row, key: str) -> str:
    """The text under a key, stripped, empty if there is none; BadRowError if it is not text."""
    value = row.get(key) or ""
    if not isinstance(value, str) or not _is_unicode(value):
        raise BadRowError(f"expected text under {key!r}, found {str(value)[:40]!r}")
    return value.strip()


def _is_unicode(text: str) -> bool:
    """JSON can spell halves of surrogate pairs, which no tokenizer and no hash takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def number_of(row: Row, key: str) -> float:
    """The number under a key; BadRowError if it is missing or not a finite number."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise BadRowError(f"expected a number under {key!r}, found {str(value)[:40]!r}")
    return float(value)


def _is_finite(value: float) -> bool:
    """JSON as Python reads it has NaN, Infinity, and integers that no float can hold."""
    return abs(value) <= sys.float_info.max
