"""Preference data in the formats it is published in.

Every reader turns a row into a `Preference`; `experiment.rows` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from alignpro_lite.experiment.data_file import BadRowError
from alignpro_lite.experiment.messages import Turn, prompt_of, transcript, turns_of
from alignpro_lite.experiment.rows import (
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
        path: JSON, JSON lines, CSV or Parquet; see `numbered_rows`.
        form: Pairs: `hh` (Anthropic HH-RLHF), `bpo` (thu-coai), `ultrafeedback` (binarised), `orca`
            (orca_dpo_pairs), `jsonl` (prompt, chosen, rejected). Prompts and answers may be text or
            messages, and the messages of the answers may begin with the prompt. Rated answers:
            `helpsteer` (its helpfulness, 0 to 4), `ratings` (prompt, answer, score).
    """
    return read_rows(path, _READERS[form])


@dataclass(frozen=True)
class _Side:
    """One of the two sides of a pair.

    Attributes:
        before: The messages before the answer, empty if it was given alone.
        answer: y.
    """

    before: tuple[Turn, ...]
    answer: str


def _side(row: Row, key: str) -> _Side:
    """An answer given as text, or as the last of several messages."""
    turns = turns_of(row, key)
    if turns is None:
        return _Side((), text_of(row, key))
    *before, last = turns
    if last.role != "assistant":
        raise BadRowError(f"expected an answer at the end of {key!r}, found a message of a user")
    return _Side(tuple(before), last.text)


def _answer(row: Row, key: str) -> str:
    return _side(row, key).answer


def _hh(row: Row) -> Preference:
    """Two transcripts, or lists of messages, that differ only in the last answer."""
    if turns_of(row, "chosen") is not None:
        return _plain_pair(row)
    asked, _, chosen = text_of(row, "chosen").rpartition(_HH_TURN)
    also_asked, _, rejected = text_of(row, "rejected").rpartition(_HH_TURN)
    if not asked or asked != also_asked:
        raise BadRowError("expected two transcripts with one conversation before the last answer")
    if not chosen.strip() or not rejected.strip():
        raise BadRowError("expected two answers, found an empty one")
    prompt = asked.removeprefix("\n\nHuman:").strip()
    return Preference(prompt, (chosen.strip(), rejected.strip()))


def _bpo(row: Row) -> Preference:
    return Preference(prompt_of(row), (_answer(row, "good_res"), _answer(row, "bad_res")))


def _plain_pair(row: Row) -> Preference:
    chosen, rejected = _side(row, "chosen"), _side(row, "rejected")
    before = chosen.before
    if before != rejected.before:
        raise BadRowError("expected two conversations that differ only in the last answer")
    # What was asked last says too little where something was answered before.
    is_whole = any(turn.role == "assistant" for turn in before) or "prompt" not in row
    prompt = transcript(before) if before and is_whole else prompt_of(row)
    return Preference(prompt, (chosen.answer, rejected.answer))


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
    return Preference(prompt, (_answer(row, "chosen"), _answer(row, "rejected")))


def _rated(row: Row, answer: str, score: str) -> Preference:
    return Preference(prompt_of(row), (_answer(row, answer),), (number_of(row, score),))


_READERS: dict[PreferenceFormat, Callable[[Row], Preference]] = {
    "hh": _hh,
    "bpo": _bpo,
    "ultrafeedback": _ultrafeedback,
    "orca": _orca,
    "jsonl": _plain_pair,
    "helpsteer": partial(_rated, answer="response", score="helpfulness"),
    "ratings": partial(_rated, answer="answer", score="score"),
}
