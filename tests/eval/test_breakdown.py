"""What a mean over all prompts hides, from records made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from alignpro_lite.eval.answers import Answers
from alignpro_lite.eval.breakdown import adaptations, results_by_kind, segments
from alignpro_lite.eval.lineup import ALL
from tests.support.records import JUDGE, lineup_of, records_of

SYSTEMS = {"none": ("a", "b"), "learned": ("a", "b"), "hint": ("a", "b"), "given": ("b",)}
KINDS = {
    **{f"a {number}": "maths" for number in range(6)},
    **{f"b {number}": "maths" if number < 3 else "poems" for number in range(6)},
}


def rewards(system, number):
    """Better on all prompts but the first of each data set, on which everything gets worse."""
    base = {"none": 0.0, "learned": 0.4, "hint": 0.1, "given": 0.2}[system]
    base = -base if number == 0 else base
    return (base, base + 0.01)


@pytest.fixture(scope="module")
def answers():
    lineup = replace(lineup_of(SYSTEMS, prompts=6), constant="hint", kinds=KINDS)
    records = [
        structs.replace(
            record,
            sent=(f"{record.prompt}\n\n{record.prompt if record.system == 'learned' else 'Hint.'}",)
            * 2
            if record.system != "none"
            else record.sent,
            cut=(record.system == "learned", False),
        )
        for record in records_of(lineup, rewards)
    ]
    return Answers.of(lineup, records)


def test_every_kind_is_compared_with_the_baseline_and_with_one_hint_for_all(answers):
    found = {(row.system, row.kind): row for row in results_by_kind(answers)}
    assert set(found) == {
        *(("learned", kind) for kind in (ALL, "maths")),
        *(("hint", kind) for kind in (ALL, "maths")),
        ("given", ALL),
    }, "three poems are too few, and so are three prompts of maths"
    row = found["learned", "maths"]
    assert (row.prompts, row.judge) == (9, JUDGE)
    assert row.gain.value == pytest.approx(0.4 * (7 - 2) / 9)
    assert row.over_constant.value == pytest.approx(0.3 * (7 - 2) / 9)
    assert row.over_constant.low <= row.over_constant.value <= row.over_constant.high
    assert row.harm.each.value == pytest.approx(2 / 9)
    assert found["hint", ALL].over_constant is None
    assert found["given", ALL].prompts == 6


def test_without_a_constant_hint_nothing_is_held_against_it(answers):
    bare = replace(answers, lineup=replace(answers.lineup, constant=None))
    assert all(row.over_constant is None for row in results_by_kind(bare))


def test_systems_that_change_prompts_are_described(answers):
    found = adaptations(answers)
    assert set(found) == {"learned", "hint", "given"}
    assert (found["hint"].own, found["hint"].distinct, found["hint"].prompts) == (0, 1, 12)
    assert found["learned"].distinct == 0, "a prompt that is said twice adds nothing of its own"


def test_the_share_of_answers_that_were_cut(answers):
    found = segments(answers)
    assert {name: described.cut for name, described in found.items()} == {
        **{"none": 0, "hint": 0, "given": 0},
        "learned": 0.5,
    }
