"""Preference data in its published forms, on rows written for the purpose."""

from __future__ import annotations

import gzip
import json

import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.rows import MAX_BAD_SHARE
from alignpro_lite.train.reward.preferences import Preference, read_preferences

GOOD = {"prompt": "Name a river.", "chosen": "The Rhine.", "rejected": "No."}
MESSAGES = [{"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "Elbe."}]


def write(path, rows):
    text = "\n".join(json.dumps(row) for row in rows) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("form", "row", "expected"),
    [
        ("jsonl", GOOD, Preference("Name a river.", ("The Rhine.", "No."))),
        (
            "bpo",
            {"prompt": "p", "optimized_prompt": "q", "good_res": "g", "bad_res": "b"},
            Preference("p", ("g", "b")),
        ),
        (
            "ultrafeedback",
            {"prompt": "p", "chosen": MESSAGES, "rejected": MESSAGES, "score_chosen": 8.0},
            Preference("p", ("Elbe.", "Elbe.")),
        ),
        (
            "orca",
            {"system": "Be kind.", "question": "q", "chosen": "c", "rejected": "r"},
            Preference("Be kind.\n\nq", ("c", "r")),
        ),
        (
            "hh",
            {
                "chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: good",
                "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: bad",
            },
            Preference("a\n\nAssistant: b\n\nHuman: c", ("good", "bad")),
        ),
        (
            "helpsteer",
            {"prompt": "p", "response": "r", "helpfulness": 3, "verbosity": 1},
            Preference("p", ("r",), (3.0,)),
        ),
        (
            "ratings",
            {"prompt": "p", "answer": "r", "score": 0.5},
            Preference("p", ("r",), (0.5,)),
        ),
    ],
)
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_each_published_form_is_read(form, row, expected, name, tmp_path):
    assert read_preferences(write(tmp_path / name, [row]), form) == ([expected], [])


def test_a_json_array_is_read(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD, GOOD]), encoding="utf-8")
    assert len(read_preferences(path, "jsonl")[0]) == 2


def test_bad_rows_are_listed_with_their_lines(tmp_path):
    path = write(tmp_path / "rows.jsonl", [GOOD] * 60)
    lines = path.read_text().splitlines()
    lines[4] = "{broken"
    lines[9] = json.dumps(GOOD | {"chosen": ""})
    path.write_text("\n".join(lines))
    rows, bad = read_preferences(path, "jsonl")
    assert [row.split(" left out, ")[0] for row in bad] == ["row 5", "row 10"]
    assert "'chosen'" in bad[1]
    assert len(rows) == 58


def test_too_many_bad_rows_stop_the_reading(tmp_path):
    bad = round(100 * MAX_BAD_SHARE) + 1
    path = write(tmp_path / "rows.jsonl", [GOOD] * (100 - bad) + [{"question": "q"}] * bad)
    with pytest.raises(InputError, match=f"found {bad} bad ones of 100"):
        read_preferences(path, "jsonl")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2", b"[]"])
def test_files_that_hold_nothing_are_one_line(content, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(InputError):
        read_preferences(tmp_path / "rows.jsonl", "jsonl")
    with pytest.raises(InputError):
        read_preferences(tmp_path / "missing.jsonl", "jsonl")


def test_transcripts_that_differ_earlier_are_bad_rows(tmp_path):
    row = {
        "chosen": "\n\nHuman: a\n\nAssistant: good",
        "rejected": "\n\nHuman: other\n\nAssistant: bad",
    }
    with pytest.raises(InputError, match="one conversation"):
        read_preferences(write(tmp_path / "rows.jsonl", [row]), "hh")
