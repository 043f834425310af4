"""Preference data in the forms it is published in.

Every reader turns one row into a `Pair` or a `Rating`. A row that does not fit
is kept apart with its number and the reason, and counted; too many of them stop
the reading, because then the format is the mistake.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from alignpro_lite.errors import InputError

MAX_BAD_SHARE = 0.05
"""Share of rows that may be unreadable."""
_HH_TURN = "\n\nAssistant:"

Row = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better one first."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Rating:
    """An answer and its score, in the unit of its data set."""

    prompt: str
    answer: str
    score: float


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read.

    Attributes:
        number: Counted from 1; for files of lines, the line.
        reason: What was expected and what was found.
    """

    number: int
    reason: str


@dataclass(frozen=True)
class Rows(Generic[T]):
    """What a file held."""

    rows: tuple[T, ...]
    bad: tuple[BadRow, ...]


PairFormat = Literal["hh", "bpo", "ultrafeedback", "orca", "jsonl"]
RatingFormat = Literal["helpsteer", "jsonl"]


def read_pairs(path: Path, form: PairFormat) -> Rows[Pair]:
    """Read preference pairs.

    Args:
        path: A JSON array or JSON lines, plain or gzipped.
        form: `hh` (Anthropic HH-RLHF), `bpo` (thu-coai), `ultrafeedback` (binarised, answers
            as text or as messages), `orca` (orca_dpo_pairs), `jsonl` (prompt, chosen, rejected).

    Raises:
        InputError: The file cannot be read, or more than MAX_BAD_SHARE of its rows.
    """
    return _read(path, _PAIR_READERS[form])


def read_ratings(path: Path, form: RatingFormat) -> Rows[Rating]:
    """Read rated answers.

    Args:
        path: A JSON array or JSON lines, plain or gzipped.
        form: `helpsteer` (its helpfulness, 0 to 4) or `jsonl` (prompt, answer, score).

    Raises:
        InputError: The file cannot be read, or more than MAX_BAD_SHARE of its rows.
    """
    return _read(path, _RATING_READERS[form])


def _read(path: Path, reader: Callable[[Row], T]) -> Rows[T]:
    rows: list[T] = []
    bad: list[BadRow] = []
    for number, raw in _raw_rows(path):
        try:
            rows.append(reader(_mapping(raw)))
        except _BadRowError as error:
            bad.append(BadRow(number, str(error)))
    total = len(rows) + len(bad)
    if not rows or len(bad) > MAX_BAD_SHARE * total:
        first = f" The first: row {bad[0].number}, {bad[0].reason}." if bad else ""
        raise InputError(
            f"{path} must hold readable rows, found {len(bad)} bad ones of {total}.{first}",
            "Check that the format named for it is the one it has.",
        )
    return Rows(tuple(rows), tuple(bad))


class _BadRowError(Exception):
    """One row cannot be used."""


def _raw_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows of a JSON array or of JSON lines, numbered from 1; a bad line comes as its text."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}).", "Check the path.") from error
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), start=1)
        except json.JSONDecodeError as error:
            raise InputError(f"{path} is not valid JSON ({error}).", "Mend the file.") from error
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError:
                yield number, line


def _mapping(raw: Any) -> Row:
    if not isinstance(raw, dict):
        raise _BadRowError(f"expected an object, found {type(raw).__name__}")
    return raw


def _text(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise _BadRowError(f"expected text under {key!r}, found {str(value)[:40]!r}")
    return value


def _number(row: Row, key: str) -> float:
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadRowError(f"expected a number under {key!r}, found {str(value)[:40]!r}")
    return float(value)


def _answer(row: Row, key: str) -> str:
    """An answer as text, or as messages whose last one it is."""
    value = row.get(key)
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return _text(value[-1], "content")
    return _text(row, key)


def _hh(row: Row) -> Pair:
    """Two transcripts that share all but the last answer."""
    asked, _, chosen = _text(row, "chosen").rpartition(_HH_TURN)
    also_asked, _, rejected = _text(row, "rejected").rpartition(_HH_TURN)
    if not asked or asked != also_asked:
        raise _BadRowError("expected two transcripts with one conversation before the last answer")
    if not chosen.strip() or not rejected.strip():
        raise _BadRowError("expected two answers, found an empty one")
    return Pair(asked.removeprefix("\n\nHuman:").strip(), chosen.strip(), rejected.strip())


def _bpo(row: Row) -> Pair:
    return Pair(_text(row, "prompt"), _text(row, "good_res"), _text(row, "bad_res"))


def _plain_pair(row: Row) -> Pair:
    return Pair(_text(row, "prompt"), _answer(row, "chosen"), _answer(row, "rejected"))


def _orca(row: Row) -> Pair:
    system = str(row.get("system") or "").strip()
    question = _text(row, "question")
    prompt = f"{system}\n\n{question}" if system else question
    return Pair(prompt, _text(row, "chosen"), _text(row, "rejected"))


def _helpsteer(row: Row) -> Rating:
    return Rating(_text(row, "prompt"), _text(row, "response"), _number(row, "helpfulness"))


def _plain_rating(row: Row) -> Rating:
    return Rating(_text(row, "prompt"), _text(row, "answer"), _number(row, "score"))


_PAIR_READERS: dict[PairFormat, Callable[[Row], Pair]] = {
    "hh": _hh,
    "bpo": _bpo,
    "ultrafeedback": _plain_pair,
    "orca": _orca,
    "jsonl": _plain_pair,
}
_RATING_READERS: dict[RatingFormat, Callable[[Row], Rating]] = {
    "helpsteer": _helpsteer,
    "jsonl": _plain_rating,
}
