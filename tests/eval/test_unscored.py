"""Answers that a judge could not score: what they cost, and what they must not decide."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.answers import Answers, filled
from alignpro_lite.eval.dial import _gate_curve
from alignpro_lite.eval.frontier import answer_pools
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.systems import keep_best
from tests.support.records import JUDGE, SpokenTarget, bench_of, lineup_of, records_of

SYSTEMS = {"none": ("a",), "told": ("a",)}


def scores(system, number):
    """No score for an answer to prompt 1, and for none to prompt 2, of the second system."""
    missing = {1: 1, 2: 3}.get(number, 0) if system == "told" else 0
    return (*([None] * missing), 1.0, 2.0, 3.0)[:3]


def test_an_unscored_answer_leaves_the_mean_of_its_prompt_alone():
    np.testing.assert_array_equal(
        filled(np.array([[1, nan, 3.0], [4, 5, 6]])), [[1, 2, 3], [4, 5, 6]]
    )


def test_an_unscored_answer_costs_itself_and_a_prompt_without_any_score_is_left_out():
    lineup = lineup_of(SYSTEMS)
    records = records_of(lineup, scores)
    answers = Answers.of(lineup, records)
    places = answers.places(ALL, "none", "told")
    assert places == [("a", 0), ("a", 1), ("a", 3)]
    assert answers.rewards("told", places, JUDGE).tolist() == [[1, 2, 3], [1.5, 1, 2], [1, 2, 3]]
    found = summarise(lineup, records, {}, (), {})
    assert found.against_baseline("a", "told", JUDGE).gain.value == pytest.approx(-0.5 / 3)
    (note,) = found.notes
    assert note.startswith(f"{JUDGE} has no score for 4 of 12 answers of told: each counts as")
    assert note.endswith("prompts without any score are left out, here 1.")


def test_the_best_answer_is_one_with_a_score():
    """NaN is the largest number to argmax."""
    target = SpokenTarget(lambda text, seed: "x" * (seed % 5))
    bench = bench_of(target, count=2, **{JUDGE: lambda y: nan if len(y) < 3 else float(len(y))})
    found = keep_best(bench, ["a", "b", "c", "d"], 0, 8, JUDGE)
    assert not np.isnan(found.rewards[JUDGE]).any()
    unscored = bench_of(target, count=2, **{JUDGE: lambda y: nan})
    assert np.isnan(keep_best(unscored, ["a"], 0, 8, JUDGE).rewards[JUDGE]).all()


def test_a_pool_is_the_answers_that_every_judge_could_score(tmp_path):
    lineup = lineup_of(SYSTEMS, calls={"told": 9})
    records = records_of(lineup, lambda system, number: (None, 1.0))
    target = SpokenTarget(lambda text, seed: "x" * (seed % 3))
    bench = bench_of(target, **{JUDGE: lambda y: nan if not y else float(len(y))})
    for _ in range(2):  # the second time from the file
        journal = Journal(tmp_path / "frontier.jsonl", "run")
        pools = answer_pools(lineup, bench, records, journal, lambda text: None)
        for pool in pools.values():
            assert pool[JUDGE][0] == 1
            assert set(pool[JUDGE][1:]) <= {1.0, 2.0}
    assert sum(len(pool[JUDGE]) for pool in pools.values()) < 4 * 8


def test_a_gate_counts_the_prompts_with_a_score():
    rows = [{"kl": 1.0, "reward": value} for value in (None, 1.0, 3.0)]
    (point,) = _gate_curve({1.0: rows, 2.0: rows[:2]}).points
    assert (point.setting, point.reward.value) == ("gate 1", 2.0)
