"""The hand-written pairs in configs/reference: what a supervised reference prompter learns from."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support import ROOT

FILES = sorted((ROOT / "configs" / "reference").glob("*.jsonl"))


def rows_of(path: Path) -> list[dict[str, object]]:
    """All pairs of one kind."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def asked(row: dict[str, object]) -> str:
    """All that the hint may know: the prompt, or the turns up to it."""
    return json.dumps(row.get("prompt", row.get("turns")), ensure_ascii=False)


ROWS = [row for path in FILES for row in rows_of(path)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_pair_has_a_prompt_or_turns_that_end_with_the_user(path: Path) -> None:
    for row in rows_of(path):
        assert set(row) in ({"language", "prompt", "hint"}, {"language", "turns", "hint"})
        if "turns" in row:
            turns = row["turns"]
            assert isinstance(turns, list)
            assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2) + [
                "user"
            ]


def test_the_pairs_are_many_of_many_kinds_and_languages() -> None:
    languages = Counter(row["language"] for row in ROWS)
    assert len(ROWS) >= 800
    assert len(FILES) >= 15
    assert sum(count >= 30 for count in languages.values()) >= 6
    assert sum("turns" in row for row in ROWS) >= 60


def test_a_fifth_of_the_prompts_stay_as_they_are() -> None:
    assert sum(row["hint"] == "" for row in ROWS) >= len(ROWS) / 5


def test_no_prompt_and_no_hint_stands_twice() -> None:
    hints = [row["hint"] for row in ROWS if row["hint"]]
    assert len({asked(row) for row in ROWS}) == len(ROWS)
    assert len(set(hints)) == len(hints)


def test_every_hint_is_about_its_own_prompt() -> None:
    """A prompter that is shown one form writes it for every prompt."""
    hints = Counter(str(row["hint"]) for row in ROWS if row["hint"])
    assert hints.most_common(1)[0][1] == 1
    openings = Counter(hint.split()[0] for hint in hints)
    assert openings.most_common(1)[0][1] <= len(ROWS) / 10


def test_no_hint_brings_a_number_that_its_prompt_does_not_have() -> None:
    for row in ROWS:
        assert set(re.findall(r"\d+", str(row["hint"]))) <= set(re.findall(r"\d+", asked(row)))
