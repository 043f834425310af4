"""Preference data in the formats it is published in.

Every reader turns a row into a `Pair` or a `Rating`; `experiment.rows` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from alignpro_lite.experiment.rows import (
    BadRowError,
    Row,
    Rows,
    number_of,
    optional_text_of,
    read_rows,
    text_of,
)

_HH_TURN = "\n\nAssistant:"


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, the better one first.

    Attributes:
        prompt: x.
        chosen: The better answer.
        rejected: The other one.
        scores: Ratings of both, in the unit of the data set, where it has any.
    """

    prompt: str
    chosen: str
    rejected: str
    scores: tuple[float, float] | None = None


@dataclass(frozen=True)
class Rating:
    """An answer and its score, in the unit of its data set."""

    prompt: str
    answer: str
    score: float


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
    return read_rows(path, _PAIR_READERS[form])


def read_ratings(path: Path, form: RatingFormat) -> Rows[Rating]:
    """Read rated answers.

    Args:
        path: A JSON array or JSON lines, plain or gzipped.
        form: `helpsteer` (its helpfulness, 0 to 4) or `jsonl` (prompt, answer, score).

    Raises:
        InputError: The file cannot be read, or more than MAX_BAD_SHARE of its rows.
    """
    return read_rows(path, _RATING_READERS[form])


def _answer(row: Row, key: str) -> str:
    """An answer given as text, or as the last of several messages."""
    value = row.get(key)
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return text_of(value[-1], "content")
    return text_of(row, key)


def _hh(row: Row) -> Pair:
    """Two transcripts that differ only in the last answer."""
    asked, _, chosen = text_of(row, "chosen").rpartition(_HH_TURN)
    also_asked, _, rejected = text_of(row, "rejected").rpartition(_HH_TURN)
    if not asked or asked != also_asked:
        raise BadRowError("expected two transcripts with one conversation before the last answer")
    if not chosen.strip() or not rejected.strip():
        raise BadRowError("expected two answers, found an empty one")
    return Pair(asked.removeprefix("\n\nHuman:").strip(), chosen.strip(), rejected.strip())


def _bpo(row: Row) -> Pair:
    return Pair(text_of(row, "prompt"), text_of(row, "good_res"), text_of(row, "bad_res"))


def _plain_pair(row: Row) -> Pair:
    return Pair(text_of(row, "prompt"), _answer(row, "chosen"), _answer(row, "rejected"))


def _ultrafeedback(row: Row) -> Pair:
    pair = _plain_pair(row)
    metadata = row.get("metadata")
    noted = metadata if isinstance(metadata, dict) else row
    if not {"score_chosen", "score_rejected"} <= noted.keys():
        return pair
    return replace(
        pair, scores=(number_of(noted, "score_chosen"), number_of(noted, "score_rejected"))
    )


def _orca(row: Row) -> Pair:
    system = optional_text_of(row, "system")
    question = text_of(row, "question")
    prompt = f"{system}\n\n{question}" if system else question
    return Pair(prompt, text_of(row, "chosen"), text_of(row, "rejected"))


def _helpsteer(row: Row) -> Rating:
    return Rating(text_of(row, "prompt"), text_of(row, "response"), number_of(row, "helpfulness"))


def _plain_rating(row: Row) -> Rating:
    return Rating(text_of(row, "prompt"), text_of(row, "answer"), number_of(row, "score"))


_PAIR_READERS: dict[PairFormat, Callable[[Row], Pair]] = {
    "hh": _hh,
    "bpo": _bpo,
    "ultrafeedback": _ultrafeedback,
    "orca": _orca,
    "jsonl": _plain_pair,
}
_RATING_READERS: dict[RatingFormat, Callable[[Row], Rating]] = {
    "helpsteer": _helpsteer,
    "jsonl": _plain_rating,
}
