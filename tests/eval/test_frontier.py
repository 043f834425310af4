"""The best of n answers beside every system that asks the target several times."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.config import RhoStarSection
from alignpro_lite.eval.frontier import answer_pools
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.report.markdown import as_markdown
from alignpro_lite.eval.report.tables import equal_calls_tables
from alignpro_lite.eval.report.verdicts import verdicts
from alignpro_lite.measure.best_of import expected_best
from tests.support.records import JUDGE, SpokenTarget, bench_of, lineup_of, records_of

SYSTEMS = {"none": ("a", "b"), "drawn": ("a",), "oracle": ("a", "b")}


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        # N trials of M each, M to the prompt itself, and one fresh answer.
        ({"samples": 8, "trials": 2}, 8 * 2 + 2 + 1),
        ({"samples": 4, "trials": 2, "returns": "scored"}, 4 * 2 + 2),
        ({"samples": 1, "trials": 1}, 1 + 1 + 1),
        # The guard asks 8 times for the prompt, and 8 times for the rewrite.
        ({"samples": 8, "trials": 2, "guard": True}, 8 * 2 + 8 + 8 + 1),
        ({"samples": 2, "trials": 3, "guard": True, "returns": "scored"}, 2 * 3 + 8 + 8),
    ],
)
def test_what_a_draw_asks_of_the_target(settings, calls):
    assert RhoStarSection(name="x", **settings).calls == calls


def rewards(system, number):
    base = {"none": 0.0, "drawn": 0.5, "oracle": 0.1}[system] + number
    return (base - 1.0, base + 1.0)


def luck(text, seed):
    """An answer whose length is drawn by the seed."""
    return "x" * (1 + seed % 7)


def measured(tmp_path, calls, target=None):
    lineup = lineup_of(SYSTEMS, calls=calls, controls=())
    records = records_of(lineup, rewards)
    bench = bench_of(target or SpokenTarget(luck))
    journal = Journal(tmp_path / "frontier.jsonl", "run")
    pools = answer_pools(lineup, bench, records, journal, lambda text: None)
    return lineup, records, pools


def test_a_pool_has_as_many_answers_as_the_dearest_system_asks_for(tmp_path):
    target = SpokenTarget(luck)
    _, _, pools = measured(tmp_path, {"drawn": 5}, target)
    sizes = {place: len(scores[JUDGE]) for place, scores in pools.items()}
    assert sizes == {("a", n): 5 for n in range(4)} | {("b", n): 2 for n in range(4)}
    assert len(target.asked) == 4 * 3, "the two answers of the baseline count too"
    for (_, number), scores in pools.items():
        assert tuple(scores[JUDGE][:2]) == rewards("none", number)


def test_nothing_is_asked_where_the_answers_suffice(tmp_path):
    target = SpokenTarget(luck)
    measured(tmp_path, {"drawn": 2}, target)
    measured(tmp_path, {}, target)
    assert target.asked == []


def test_an_interrupted_pool_goes_on_and_asks_nothing_twice(tmp_path):
    target = SpokenTarget(luck)
    _, _, whole = measured(tmp_path, {"drawn": 5}, target)
    asked = len(target.asked)
    _, _, again = measured(tmp_path, {"drawn": 5}, target)
    assert len(target.asked) == asked
    assert {p: list(s[JUDGE]) for p, s in again.items()} == {
        p: list(s[JUDGE]) for p, s in whole.items()
    }
    file = tmp_path / "frontier.jsonl"
    file.write_text(json.dumps({"data": "a", "run": "run"}) + "\n")
    with pytest.raises(InputError, match="Delete that line"):
        measured(tmp_path, {"drawn": 5}, target)


def test_a_search_stands_beside_the_best_of_as_many_answers(tmp_path):
    """Holds down: 167 % of the oracle's gain had no best of n beside it."""
    lineup, records, pools = measured(tmp_path, {"drawn": 5})
    found = summarise(lineup, records, pools, (), {})
    (row,) = found.equal_calls
    assert (row.system, row.calls, row.prompts) == ("drawn", 5, 4)
    best = np.array(
        [
            expected_best(pools["a", n][JUDGE][None], pools["a", n][JUDGE][None], 5)[0] - n
            for n in range(4)
        ]
    )
    assert row.best.value == pytest.approx(best.mean())
    assert row.difference.value == pytest.approx(row.gain.value - row.best.value)
    assert [point.calls for point in found.frontier] == [2, 4, 5]
    gains = [point.gain.value for point in found.frontier if point.prompts == 4]
    assert gains == sorted(gains)
    (table,) = equal_calls_tables(found)
    assert [shown.text for shown in table.rows[-1]][:2] == ["drawn", "5"]
    text = as_markdown(found)
    assert "drawn asks 5 times for an answer. The best of as many" in text
    assert "At equal calls of the target" in text


def test_an_oracle_below_the_best_of_a_few_answers_is_named(tmp_path):
    """Holds down: "74 % of the oracle" was a share of less than the best of 4 gains."""
    lineup, records, pools = measured(tmp_path, {})
    found = summarise(replace(lineup, oracle="oracle"), records, pools, (), {})
    (sentence,) = (v for v in verdicts(found) if v.text.startswith("oracle gains"))
    assert "no more than the best of 2 answers" in sentence.text
    assert sentence.tone == "worse"
    good = records_of(lineup, lambda s, n: (n + 9.0 * (s == "oracle"),) * 2)
    found = summarise(replace(lineup, oracle="oracle"), good, pools, (), {})
    assert not [v for v in verdicts(found) if v.text.startswith("oracle gains")]


def test_the_first_judge_chooses_under_every_judge(tmp_path):
    """The best by the reward that is optimised may be the worst by another."""
    lineup = replace(lineup_of({"none": ("a",)}), judges=(JUDGE, "second"))
    records = records_of(lineup, rewards)
    pools = {
        ("a", n): {JUDGE: np.array([0.0, 1.0]), "second": np.array([1.0, 0.0])} for n in range(4)
    }
    found = summarise(lineup, records, pools, (), {})
    plain = np.mean([rewards("none", n) for n in range(4)])
    gains = {point.judge: point.gain.value for point in found.frontier}
    assert gains == {JUDGE: pytest.approx(1.0 - plain), "second": pytest.approx(0.0 - plain)}
