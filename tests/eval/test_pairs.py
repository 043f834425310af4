"""`eval pairs`: shares by hand, and a measurement that is stopped, resumed, and kept as labels."""

from __future__ import annotations

import json
import math
from typing import Any, get_args

import pytest

from alignpro_lite.cli.evaluate import eval_pairs
from alignpro_lite.errors import InputError, RewardError
from alignpro_lite.eval.pairs import (
    ACCURACY,
    VERDICTS,
    PairsPlan,
    found_of,
    judge_preferences,
    write_labels,
)
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.judge import AnswerPair, Tie, Verdict
from alignpro_lite.train.reward.preferences import PreferenceFormat, read_preferences
from tests.support import TINY_TARGET

PAIRS = [
    AnswerPair("Why?", "Because of that.", "So."),
    AnswerPair("How?", "So.", "By way of that."),
    AnswerPair("Who?", "Me.", "Me."),
    AnswerPair("When?", "At noon, mostly.", "Now."),
]
LENGTH = "tests.support.reward_functions:length"


def places_in(folder, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(folder / "cache"))
    return Places(folder, folder / "out", ModelStore.open())


def silent(text):
    pass


def test_shares_by_hand():
    verdicts = [
        Verdict(2.0, 0.9, True, None),
        Verdict(-1.0, 0.9, False, None),
        Verdict(0.0, None, None, Tie.EQUAL),
        Verdict(3.0, 0.9, True, None),
    ]
    found = found_of("judge:x", PAIRS, verdicts)
    assert (found.pairs, found.right.value, found.longer.value) == (4, 2.5 / 4, 2.5 / 4)
    assert found.right.low < 0.625 < found.right.high
    assert found.same_letter is not None
    assert found.same_letter.value == pytest.approx(2 / 3)
    assert found.ties == {Tie.EQUAL: 1}
    loss = sum(math.log1p(math.exp(-margin)) for margin in (2, -1, 0, 3)) / 4
    assert found.log_loss == pytest.approx(loss)
    shown = str(found)
    assert "judge:x            0.625" in shown
    assert "the longer answer  0.625" in shown
    assert "ties because the answers are the same text: 1" in shown


def test_a_reward_of_single_answers_has_no_letters(tmp_path, monkeypatch):
    places = places_in(tmp_path, monkeypatch)
    found, verdicts = judge_preferences(PAIRS, PairsPlan("p", LENGTH, "t"), places, silent)
    assert found.right.value == found.longer.value == 2.5 / 4
    assert found.same_letter is None
    assert [verdict.preference for verdict in verdicts] == [1, -1, 0, 1]
    assert json.loads((places.run / ACCURACY).read_text())["pairs"] == 4


def test_a_stopped_measurement_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("alignpro_lite.reward.judge.LEAST_MASS", 0.0)
    places = places_in(tmp_path, monkeypatch)
    plan = PairsPlan("p", "judge:target", str(TINY_TARGET))
    whole, verdicts = judge_preferences(PAIRS, plan, places, silent)
    file = places.run / VERDICTS
    lines = file.read_text().splitlines(keepends=True)
    assert len(lines) == len(PAIRS)
    file.write_text("".join(lines[:2]) + lines[2][:9])
    notes: list[str] = []
    assert judge_preferences(PAIRS, plan, places, notes.append) == (whole, verdicts)
    assert notes == ["Resuming: 2 of 4 pairs are judged."]
    assert file.read_text() == "".join(lines)
    with pytest.raises(InputError, match="another configuration"):
        judge_preferences([*PAIRS[1:], PAIRS[0]], plan, places, silent)
    with pytest.raises(InputError, match="rows = None"):
        judge_preferences(PAIRS, PairsPlan("p", plan.reward, plan.target, 2), places, silent)


def test_a_judge_of_nonsense_is_refused_and_what_it_said_is_kept(tmp_path, monkeypatch):
    places = places_in(tmp_path, monkeypatch)
    plan = PairsPlan("p", f"judge:{TINY_TARGET}", "default")
    with pytest.raises(RewardError, match="3 of 3 pairs"):
        judge_preferences(PAIRS, plan, places, silent)
    assert len((places.run / VERDICTS).read_text().splitlines()) == 4


def test_labels_are_what_the_judge_prefers_and_training_reads_them(tmp_path):
    verdicts = [
        Verdict(2.0, 0.9, True, None),
        Verdict(-1.5, 0.9, False, None),
        Verdict(0.0, None, None, Tie.EQUAL),
        Verdict(0.0, 0.9, True, None),
    ]
    file = tmp_path / "labels.jsonl"
    assert write_labels(file, PAIRS, verdicts) == 2
    rows, bad = read_preferences(file, "jsonl")
    assert [row.answers for row in rows] == [
        ("Because of that.", "So."),
        ("By way of that.", "So."),
    ]
    assert not bad
    margins = [json.loads(line)["margin"] for line in file.read_text().splitlines()]
    assert margins == [2.0, 1.5]


def test_the_command_takes_every_format_of_pairs():
    (form,) = (option for option in eval_pairs.params if option.name == "form")
    kind: Any = form.type
    rated = {"helpsteer", "ratings"}
    assert set(kind.choices) == set(get_args(PreferenceFormat)) - rated
