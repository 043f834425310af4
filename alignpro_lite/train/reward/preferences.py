"""Preference data in the formats it is published in.

Every reader turns a row into a `Preference`; `experiment.rows` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from alignpro_lite.experiment.rows import (
    BadRowError,
    Row,
    number_of,
    optional_text_of,
    read_rows,
    text_of,
)

_HH_TURN = "\n\nAssistant:"


PreferenceFormat = Literal["hh", "bpo", "ultrafeedback", "orca", "jsonl", "helpsteer", "ratings"]


@dataclass(frozen=True)
class Preference:
    """A prompt with two answers, the better one first, or with one that is rated.

    Attributes:
        prompt: x.
        answers: Two, or the rated one.
        scores: Of each answer, in the unit of the data set; empty where it has none.
    """

    prompt: str
    answers: tuple[str, ...]
    scores: tuple[float, ...] = ()


def read_preferences(path: Path, form: PreferenceFormat) -> tuple[list[Preference], list[str]]:
    """Read preference pairs or rated answers; see `read_rows` for what is returned and raised.

    Args:
        path: A JSON array or JSON lines, plain or gzipped.
        form: Pairs: `hh` (Anthropic HH-RLHF), `bpo` (thu-coai), `ultrafeedback` (binarised, answers
            as text or as messages), `orca` (orca_dpo_pairs), `jsonl` (prompt, chosen, rejected).
            Rated answers: `helpsteer` (its helpfulness, 0 to 4), `ratings` (prompt, answer, score).
    """
    return read_rows(path, _READERS[form])


def _answer(row: Row, key: str) -> str:
    """An answer given as text, or as the last of several messages."""
    value = row.get(key)
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return text_of(value[-1], "content")
    return text_of(row, key)


def _hh(row: Row) -> Preference:
    """Two transcripts that differ only in the last answer."""
    asked, _, chosen = text_of(row, "chosen").rpartition(_HH_TURN)
    also_asked, _, rejected = text_of(row, "rejected").rpartition(_HH_TURN)
    if not asked or asked != also_asked:
        raise BadRowError("expected two transcripts with one conversation before the last answer")
    if not chosen.strip() or not rejected.strip():
        raise BadRowError("expected two answers, found an empty one")
    prompt = asked.removeprefix("\n\nHuman:").strip()
    return Preference(prompt, (chosen.strip(), rejected.strip()))


def _bpo(row: Row) -> Preference:
    answers = text_of(row, "good_res"), text_of(row, "bad_res")
    return Preference(text_of(row, "prompt"), answers)


def _plain_pair(row: Row) -> Preference:
    return Preference(text_of(row, "prompt"), (_answer(row, "chosen"), _answer(row, "rejected")))


def _ultrafeedback(row: Row) -> Preference:
    pair = _plain_pair(row)
    metadata = row.get("metadata")
    noted = metadata if isinstance(metadata, dict) else row
    if not {"score_chosen", "score_rejected"} <= noted.keys():
        return pair
    return replace(
        pair, scores=(number_of(noted, "score_chosen"), number_of(noted, "score_rejected"))
    )


def _orca(row: Row) -> Preference:
    system = optional_text_of(row, "system")
    question = text_of(row, "question")
    prompt = f"{system}\n\n{question}" if system else question
    return Preference(prompt, (text_of(row, "chosen"), text_of(row, "rejected")))


def _rated(row: Row, answer: str, score: str) -> Preference:
    return Preference(text_of(row, "prompt"), (text_of(row, answer),), (number_of(row, score),))


_READERS: dict[PreferenceFormat, Callable[[Row], Preference]] = {
    "hh": _hh,
    "bpo": _bpo,
    "ultrafeedback": _ultrafeedback,
    "orca": _orca,
    "jsonl": _plain_pair,
    "helpsteer": partial(_rated, answer="response", score="helpfulness"),
    "ratings": partial(_rated, answer="answer", score="score"),
}
