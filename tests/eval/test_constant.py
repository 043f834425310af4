"""The best constant hint: which hints are tried, how one is chosen, and that it resumes."""

from __future__ import annotations

import json
import math

import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.eval.constant import HintRace, remembered
from alignpro_lite.eval.hints import GeneralHint, HintCandidate, hint_candidates, read_hints
from alignpro_lite.eval.journal import Journal
from tests.support.records import SpokenTarget, bench_of

PROMPTS = ("Why?", "How?", "Who?")
NAMES = [f"Hint {letter}." for letter in "abcdefghij"]


def worth(values):
    """A judge that finds the hint in an answer that repeats the prompt it was sent."""
    return lambda answer: next((v for hint, v in values.items() if answer.endswith(hint)), 0.0)


def race(folder, target=None, prompts=PROMPTS, first=2, **judges):
    bench = bench_of(target or SpokenTarget(), **judges)
    return HintRace(bench, prompts, first, 0, Journal(folder / "trials.jsonl", "run"))


def candidates(*texts):
    return [HintCandidate(text, "aim") for text in texts]


def test_the_hints_of_the_package_are_at_least_twenty_and_short():
    hints = read_hints(None)
    assert len(hints) >= 20
    assert "Let's think step by step." in {hint.text for hint in hints}
    assert len({hint.aim for hint in hints}) == len(hints)
    assert all(len(hint.text.split()) <= 20 for hint in hints)


def test_frequent_hints_are_tried_with_the_general_ones_each_once():
    written = {
        "small": ["List it."] * 3 + ["", "Rhyme.", "step by STEP"] + ["Explain it."] * 2,
        "big": ["Explain it.", *(f"Rare {n}." for n in range(9))],
    }
    found = hint_candidates([GeneralHint("stepwise", "Step by step.")], written)
    assert [candidate.text for candidate in found[:4]] == [
        *("List it.", "Explain it.", "Rhyme.", "step by STEP")
    ]
    assert found[0].origin == "small wrote it 3 of 8 times"
    assert [candidate.text for candidate in found[4:]] == ["Rare 0.", "Rare 1.", "Rare 2."]
    assert hint_candidates([GeneralHint("a", "Be brief.")], {}) == [HintCandidate("Be brief.", "a")]


def test_the_best_hint_wins_with_what_it_takes(tmp_path):
    values = {name: float(place) for place, name in enumerate(NAMES)}
    target = SpokenTarget()
    found = race(tmp_path, target, reward=worth(values)).winner(candidates(*NAMES))
    # 10 hints answer 2 prompts, 4 of them 4 others, 2 of them 8 others.
    assert (found.text, found.tried, found.answers) == ("Hint j.", 10, 10 * 2 + 4 * 4 + 2 * 8)
    assert len(target.asked) == found.answers
    assert "the best of 10, chosen by 52 answers" in found.note("it")


def test_all_hints_of_a_round_answer_the_same_prompts_with_the_same_seeds(tmp_path):
    asked = []

    def say(text, seed):
        asked.append((text, seed))
        return text

    race(tmp_path, SpokenTarget(say)).winner(candidates("A.", "B."))
    first, second = (
        [(text.split("\n")[0], seed) for text, seed in asked if text.endswith(hint)]
        for hint in ("A.", "B.")
    )
    assert first == second


def test_where_there_are_few_prompts_they_are_answered_again(tmp_path):
    target = SpokenTarget()
    race(tmp_path, target, prompts=PROMPTS[:1], first=2).winner(candidates("A.", "B."))
    assert target.asked == ["Why?\n\nA."] * 2 + ["Why?\n\nB."] * 2


def test_a_race_goes_on_where_it_stopped_and_asks_nothing_twice(tmp_path):
    values = {name: float(place) for place, name in enumerate(NAMES)}
    whole = race(tmp_path, reward=worth(values)).winner(candidates(*NAMES))
    file = tmp_path / "trials.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:11]) + lines[11][:20])
    target = SpokenTarget()
    assert race(tmp_path, target, reward=worth(values)).winner(candidates(*NAMES)) == whole
    assert file.read_text() == "".join(lines)
    assert len(target.asked) == 3 * 4 + 2 * 8
    again = SpokenTarget()
    race(tmp_path, again, reward=worth(values)).winner(candidates(*NAMES))
    assert again.asked == []
    file.write_text('{"round": 0, "text": "A.", "run": "run"}\n')
    with pytest.raises(InputError, match="Delete that line"):
        race(tmp_path).winner(candidates(*NAMES))


def test_without_prompts_to_spare_no_reward_chooses(tmp_path):
    """A choice by reward on the judged prompts would count its luck as a gain."""
    target = SpokenTarget()
    found = race(tmp_path, target, prompts=()).winner(candidates("A.", "B."))
    assert (found.text, found.tried, target.asked) == ("A.", 1, [])
    assert "not chosen by any reward" in found.note("it")


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_an_answer_without_a_score_does_not_stop_a_trial(tmp_path, score):
    """Training survives such answers, so the choice of a hint after it must."""
    scored = race(tmp_path, reward=lambda answer: score if "B" in answer else 1.0)
    assert scored.winner(candidates("B.", "A.")).text == "A."
    assert (
        json.loads((tmp_path / "trials.jsonl").read_text().splitlines()[0])["rewards"] == [None] * 2
    )
    (tmp_path / "trials.jsonl").unlink()
    assert (
        race(tmp_path, reward=lambda answer: math.nan).winner(candidates("A.", "B.")).text == "A."
    )


def test_only_the_first_judge_chooses(tmp_path):
    judged = race(
        tmp_path,
        reward=worth({"A.": 2.0, "B.": 1.0}),
        second=worth({"A.": 0.0, "B.": 5.0}),
    )
    assert judged.winner(candidates("A.", "B.")).text == "A."


def test_candidates_are_found_once(tmp_path):
    journal = Journal(tmp_path / "hints.jsonl", "run")
    found = candidates("A.", "B.")
    assert remembered(journal, lambda: found) == found
    assert remembered(journal, lambda: pytest.fail("found again")) == found


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[hint]]\naim = "a"\ntext = "A."\n', "hint must be"),
        ('[[hint]]\naim = "a"\ntext = ""\n' * 2, "hint.0.text must be"),
        ('[[hint]]\naim = "a"\ntext = "A."\n' * 2, "'A.' twice"),
        ("hint = 3\n", "hint must be"),
    ],
)
def test_a_file_of_hints_that_cannot_be_is_refused(tmp_path, text, problem):
    file = tmp_path / "hints.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=problem):
        read_hints(file)


def test_the_hints_of_a_round_are_answered_together_with_the_same_seeds(tmp_path):
    """Hint by hint, a round of short batches took several times as long."""
    calls = []

    class Noting(SpokenTarget):
        def answers(self, conversations, plan, seeds):
            calls.append((len(conversations), list(seeds)))
            return super().answers(conversations, plan, seeds)

    race(tmp_path, Noting(), reward=worth({})).winner(candidates(*NAMES[:4]))
    (first, seeds), *_ = calls
    assert first == 8
    assert seeds == seeds[:2] * 4
