"""The rows of a data file: JSON, JSON lines, CSV or Parquet, plain or gzipped.

A file is what its content says, whatever its name. What holds no rows is refused by what it is.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

from alignpro_lite.errors import InputError, MissingDependencyError
from alignpro_lite.experiment.foreign import refuse_foreign

_ROW_LISTS = ("data", "rows", "examples", "instances")
"""Keys under which a JSON object holds its rows."""
_OBJECT = re.compile(r'\s*\{\s*("|\}?\s*$)')
"""How a line of JSON begins; a cell of a table that begins so is in quotation marks."""
_DELIMITERS = ",;\t|"
_TABLE_SUFFIXES = {".csv", ".tsv"}
_LONGEST_CELL = 2**31 - 1
_FILES_SHOWN = 3

Numbered = tuple[int, "Mapping[str, Any] | BadRowError"]
"""A row or what is wrong with it, and its number."""


class BadRowError(Exception):
    """One row cannot be used."""


class TableCell(str):
    """A cell of a table, which tells no types: a text, or a number where one is wanted."""

    __slots__ = ()


def numbered_rows(path: Path) -> Iterator[Numbered]:
    """Read the rows of a file.

    Args:
        path: A JSON array, a JSON object that holds one, JSON lines, CSV or Parquet; plain or
            gzipped; text in UTF-8, UTF-16 or UTF-32.

    Yields:
        Rows, numbered from 1, in a file of lines by their lines.

    Raises:
        InputError: It cannot be read, or holds no rows: says what it is.
        MissingDependencyError: It is Parquet, and pyarrow is not installed.
    """
    raw = _unpacked(path, _content(path))
    if raw.startswith(b"PAR1"):
        return _parquet_rows(path, raw)
    refuse_foreign(path, raw)
    text = _decoded(path, raw)
    lines = [line for line in text.lstrip()[:10_000].split("\n") if line.strip()][:2]
    if not lines:
        raise InputError(f"{path} must hold rows of data, found an empty file.", "Fill it.")
    if text.lstrip().startswith("["):
        return _array_rows(path, text)
    if any(_OBJECT.match(line) for line in lines):
        return _object_rows(text)
    return _table_rows(path, text, lines[0])


def _content(path: Path) -> bytes:
    try:
        if path.is_dir():
            found = sorted(entry.name for entry in path.iterdir())[:_FILES_SHOWN]
            raise InputError(
                f"{path} must be a file, found a folder with {', '.join(found) or 'no file'}.",
                "Name a file in it.",
            )
        if path.exists() and not path.is_file():
            raise InputError(f"{path} must be a file, found a device or pipe.", "Name a file.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        raise InputError(f"{path} cannot be read ({error}).", "Check the path.") from error


def _unpacked(path: Path, raw: bytes) -> bytes:
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read: it is gzipped and damaged ({error}).", "Get it again."
        ) from error


def _decoded(path: Path, raw: bytes) -> str:
    try:
        return raw.decode(json.detect_encoding(raw))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path} must be text in UTF-8 or UTF-16, found byte 0x{raw[error.start]:02x} in "
            f"line {line}.",
            "Save it as UTF-8, for example with `iconv -f WINDOWS-1252 -t UTF-8`.",
        ) from error


def _array_rows(path: Path, text: str) -> Iterator[Numbered]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}).", "Correct the file.") from error
    return _numbered(rows)


def _object_rows(text: str) -> Iterator[Numbered]:
    """Rows of JSON lines, or of one object that holds them."""
    try:
        return _numbered(_held_rows(json.loads(text)))
    except (ValueError, RecursionError):  # several objects, or a line that is broken
        return _line_rows(text)


def _held_rows(document: Mapping[str, Any]) -> list[Any]:
    for key in _ROW_LISTS:
        held = document.get(key)
        if isinstance(held, list) and held and all(isinstance(row, dict) for row in held):
            # The server of Hugging Face's viewer puts each row beside its index.
            return [row["row"] if "row_idx" in row and "row" in row else row for row in held]
    columns = [_column(values) for values in document.values()]
    if columns and all(_is_column(column, columns[0]) for column in columns):
        return [dict(zip(document, cells, strict=True)) for cells in zip(*columns, strict=True)]
    return [document]


def _column(values: Any) -> Any:
    """The cells of a column; pandas writes them under their indices, which count from 0."""
    if isinstance(values, dict) and list(values) == [str(index) for index in range(len(values))]:
        return list(values.values())
    return values


def _is_column(values: Any, first: Any) -> bool:
    """Whether this is a column of several; a list of objects is a conversation."""
    is_list = isinstance(values, list) and isinstance(first, list)
    return (
        is_list
        and len(values) == len(first)
        and not any(isinstance(value, dict) for value in values)
    )


def _line_rows(text: str) -> Iterator[Numbered]:
    # A line may end with a carriage return alone: unescaped, JSON has none in a string.
    for number, line in enumerate(re.split("\r\n|\n|\r", text), start=1):
        if line.strip():
            try:
                yield number, _row(json.loads(line))
            except (ValueError, RecursionError) as error:
                yield number, BadRowError(f"it is not valid JSON ({error})")


def _numbered(rows: Iterator[Any] | list[Any]) -> Iterator[Numbered]:
    return ((number, _row(row)) for number, row in enumerate(rows, start=1))


def _row(raw: Any) -> Mapping[str, Any] | BadRowError:
    if isinstance(raw, dict):
        return raw
    return BadRowError(f"expected an object, found {type(raw).__name__}")


def _table_rows(path: Path, text: str, header: str) -> Iterator[Numbered]:
    """Rows of a table whose first line names its columns."""
    delimiter = max(_DELIMITERS, key=header.count)
    if delimiter not in header and not _TABLE_SUFFIXES & set(path.suffixes):
        raise InputError(
            f"{path} must hold JSON, JSON lines, CSV or Parquet, found a file that begins with "
            f"{header[:40]!r}.",
            'Write each row as a line such as {"prompt": "..."}.',
        )
    (_, header_cells), *rows = _cells(path, text, delimiter)
    names = [name.strip() for name in header_cells]
    _refuse_repeated(path, names)
    for number, cells in rows:
        if len(cells) == len(names):
            yield number, dict(zip(names, map(TableCell, cells), strict=True))
        elif cells:
            yield number, BadRowError(f"expected {len(names)} cells, found {len(cells)}")


def _refuse_repeated(path: Path, names: Sequence[str]) -> None:
    """Refuse columns of one name, of which a row could keep only the last."""
    if repeated := [name for name, count in Counter(names).items() if name and count > 1]:
        raise InputError(
            f"{path} must name each column once, found {repeated[0]!r} more than once.",
            "Rename or remove one of them.",
        )


def _cells(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Every row of a table, with the line in which it ends."""
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter)
        return [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise InputError(f"{path} is not a valid table ({error}).", "Correct the file.") from error
    finally:
        csv.field_size_limit(limit)


def _parquet_rows(path: Path, raw: bytes) -> Iterator[Numbered]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is a Parquet file, which needs pyarrow, and that does not load ({error}).",
            "Run `pip install pyarrow`.",
        ) from error
    try:
        file = parquet.ParquetFile(io.BytesIO(raw))
        names = file.schema_arrow.names
        _refuse_repeated(path, names)
        batches = file.iter_batches(columns=[name for name in names if not _is_time(file, name)])
        return _numbered([_plain(row) for batch in batches for row in batch.to_pylist()])
    except (OSError, ValueError, NotImplementedError, OverflowError) as error:  # pyarrow's bases
        raise InputError(
            f"{path} cannot be read: it is a damaged Parquet file ({error}).", "Get it again."
        ) from error


def _is_time(file: Any, name: str) -> bool:
    """Whether a column holds dates or times: no format reads them, nor can Python hold them all."""
    types = importlib.import_module("pyarrow.types")
    return bool(types.is_temporal(file.schema_arrow.field(name).type))


def _plain(value: Any) -> Any:
    """A value of Parquet as JSON has it: some writers store text as bytes, numbers as decimals."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case Decimal():
            return float(value)
        case bytes():
            with suppress(UnicodeDecodeError):  # an image or the like stays what it is
                return value.decode()
    return value
