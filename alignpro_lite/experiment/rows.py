"""Rows of data: each one read or counted as bad, with its number and the reason.

Too many bad rows stop the reading, because then the format is the mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.data_file import BadRowError, TableCell, numbered_rows

MAX_BAD_SHARE = 0.05
"""Share of rows that may be unreadable."""

Row = Mapping[str, Any]
T = TypeVar("T")


def read_rows(path: Path, reader: Callable[[Row], T]) -> tuple[list[T], list[str]]:
    """Read every row of a file.

    Args:
        path: JSON, JSON lines, CSV or Parquet; see `numbered_rows`.
        reader: Makes a value of a row, or raises BadRowError.

    Returns:
        The values, and a sentence for every row that is left out: its number, counted from 1 and in
        a file of lines that of its line, with what was expected and what was found.

    Raises:
        InputError: The file cannot be read, or more than MAX_BAD_SHARE of its rows.
        MissingDependencyError: It is Parquet, and pyarrow is not installed.
    """
    rows: list[T] = []
    bad: list[str] = []
    for number, row in numbered_rows(path):
        try:
            if isinstance(row, BadRowError):
                raise row
            rows.append(reader(row))
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


def text_of(row: Row, key: str) -> str:
    """The text under a key; BadRowError if it is missing, blank or not text."""
    if key not in row:
        keys = ", ".join(map(repr, row))[:80]
        raise BadRowError(f"expected text under {key!r}, found a row with {keys or 'no keys'}")
    return require_text(row[key], repr(key))


def require_text(value: Any, place: str) -> str:
    """A value that is text; BadRowError, which names its place, if it is blank or none."""
    if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
        raise BadRowError(f"expected text under {place}, found {str(value)[:40]!r}")
    return value


def optional_text_of(row: Row, key: str) -> str:
    """The text under a key, stripped, empty if there is none; BadRowError if it is not text."""
    value = row.get(key) or ""
    if not isinstance(value, str) or not _is_unicode(value):
        raise BadRowError(f"expected text under {key!r}, found {str(value)[:40]!r}")
    return value.strip()


def answer_of_row(row: Row, key: str) -> str:
    """The right answer under a key: a text, or a number as JSON has it; otherwise BadRowError."""
    value = row.get(key)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(value)
    return text_of(row, key).strip()


def lists_of(row: Row, *keys: str) -> None:
    """Refuse a row whose keys do not hold lists of one length; BadRowError names them."""
    found = [row.get(key) for key in keys]
    lengths = {len(value) for value in found if isinstance(value, list)}
    if len(lengths) != 1 or not all(isinstance(value, list) for value in found):
        named = " and ".join(map(repr, keys))
        raise BadRowError(f"expected lists of one length under {named}, found {found!r:.60}")


def _is_unicode(text: str) -> bool:
    """JSON can spell halves of surrogate pairs, which no tokenizer and no hash takes."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def number_of(row: Row, key: str) -> float:
    """The number under a key; BadRowError if it is missing or not a finite number."""
    value = row.get(key)
    if isinstance(value, TableCell):
        value = _number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise BadRowError(f"expected a number under {key!r}, found {str(value)[:40]!r}")
    return float(value)


def _number(cell: TableCell) -> float | TableCell:
    try:
        return float(cell)
    except ValueError:
        return cell


def _is_finite(value: float) -> bool:
    """JSON as Python reads it has NaN, Infinity, and integers that no float can hold."""
    return abs(value) <= sys.float_info.max
