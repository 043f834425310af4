"""How often a judge is right stands on the page that uses it, beside mere length."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from alignpro_lite.eval import judges
from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.judges import judge_accuracies
from alignpro_lite.eval.report.tables import accuracy_table
from alignpro_lite.eval.report.verdicts import verdicts
from alignpro_lite.reward.loading import ScorerSource
from tests.support.records import lineup_of, records_of

STORE: Any = SimpleNamespace(path=lambda kind, name: name)


def pairs(part, count, accuracy, length):
    return {
        "part": part,
        "pairs": {
            "count": count,
            "accuracy": accuracy,
            "accuracy_95": [accuracy - 0.04, accuracy + 0.04],
            "accuracy_of_length": length,
            "log_loss": 0.69,
            "calibration_error": 0.01,
        },
    }


CARDS = {
    "default": {
        "ultrafeedback.jsonl": pairs("helpfulness", 251, 0.600, 0.520),
        "hh.jsonl.gz": pairs("harmlessness", 472, 0.602, 0.493),
    },
    "second": {
        "ultrafeedback.jsonl": pairs("helpfulness", 747, 0.533, 0.568),
        "hh.jsonl.gz": pairs("harmlessness", 1322, 0.573, 0.435),
    },
    "ratings only": {"helpsteer.jsonl": {"part": "helpfulness", "ratings": {"count": 9}}},
    "made elsewhere": {},
}


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    def opened(name):
        return SimpleNamespace(card=CARDS[name], weights={"helpfulness": 1.0})

    monkeypatch.setattr(judges, "REWARD_BUNDLE", SimpleNamespace(open=opened))


def onnx(name, **weights):
    return ScorerSource("onnx", name, weights or {"helpfulness": 1.0, "harmlessness": 0.3})


def summary_of(judge, accuracies):
    lineup = replace(lineup_of({"none": ("a",)}), judges=(judge,))
    records = records_of(lineup, lambda system, number: (0.0, 1.0))
    return summarise(lineup, records, {}, accuracies, {})


def told(accuracies, judge):
    return [v for v in verdicts(summary_of(judge, accuracies)) if f"judge {judge}" in v.text]


def test_a_judge_below_length_is_named_as_such():
    """Holds down: the second judge was right less often than "the longer one", unsaid."""
    found = judge_accuracies({"second": (onnx("second"),)}, STORE)
    row = found[0]
    assert (row.part, row.data, row.pairs, row.length) == (
        *("helpfulness", "ultrafeedback.jsonl", 747, 0.568),
    )
    assert row.accuracy.value == 0.533
    assert row.is_below_length
    (sentence,) = told(found, "second")
    assert sentence.tone == "worse"
    assert "below length" in sentence.text
    assert (
        "ultrafeedback.jsonl (0.533 of 747 pairs right, the longer answer 0.568)" in sentence.text
    )
    assert "hh.jsonl.gz" not in sentence.text


def test_a_judge_above_length_needs_no_sentence():
    found = judge_accuracies({"reward": (onnx("default"),)}, STORE)
    assert told(found, "reward") == []


@pytest.mark.parametrize(
    "source",
    [
        ScorerSource("python", "my:function", {"brevity": 1.0}),
        ScorerSource("judge", "chat.gguf", {"judge": 1.0}),
        ScorerSource("huggingface", "folder", {"preference": 1.0}),
        onnx("ratings only", helpfulness=1.0),
        onnx("made elsewhere", helpfulness=1.0),
        onnx("default", politeness=1.0),
    ],
)
def test_a_judge_that_was_never_measured_says_so(source):
    found = judge_accuracies({"odd": (source,)}, STORE)
    (row,) = found
    assert (row.pairs, row.accuracy, row.length, row.is_below_length) == (0, None, None, False)
    (sentence,) = told(found, "odd")
    assert "is not known" in sentence.text


def test_parts_without_weight_judge_nothing():
    found = judge_accuracies({"r": (onnx("default", helpfulness=1.0, harmlessness=0.0),)}, STORE)
    assert {row.part for row in found} == {"helpfulness"}
    own = judge_accuracies({"r": (ScorerSource("onnx", "default", {}),)}, STORE)
    assert [(row.part, row.weight) for row in own] == [("helpfulness", 1.0)]


def test_the_table_shows_both_and_marks_the_worse():
    found = judge_accuracies({"reward": (onnx("default"),), "second": (onnx("second"),)}, STORE)
    table = accuracy_table(summary_of("reward", found))
    shown = [[(cell.text, cell.tone) for cell in row] for row in table.rows]
    assert shown[2][4:] == [("0.533", "worse"), ("0.568", "")]
    assert [row[4][1] for row in shown] == ["", "", "worse", ""]
