"""What every system is held against: ρ_sft drawn alike, one hint for all, and pair by pair."""

from __future__ import annotations

import json
import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import InputError
from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.arms import CONSTANT, constant_systems
from alignpro_lite.eval.bench import Response
from alignpro_lite.eval.config import (
    AnySystem,
    GivenSection,
    InstructionSection,
    NoPrompterSection,
    PrompterSystemSection,
    ReferenceSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.constant import ConstantHint, best_constant, remembered
from alignpro_lite.eval.frontier import answer_pools
from alignpro_lite.eval.inputs import prompts_of
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.loaded import open_system
from alignpro_lite.eval.report.verdicts import verdicts
from alignpro_lite.eval.systems import send_fixed
from alignpro_lite.measure.statistics import mean_difference
from alignpro_lite.prompter.template import AUGMENT, REWRITE
from tests.eval.test_run import NONE, config_of, places_in
from tests.support.records import JUDGE, SpokenTarget, bench_of, lineup_of, records_of


def as_partial(system: Any) -> partial[Any]:
    assert isinstance(system, partial)
    return system


TEMPLATES = {"hints": AUGMENT, "more hints": AUGMENT, "whole": REWRITE}


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.4),
        Sampling(temperature=0.0),
        Sampling(temperature=0.7, top_p=0.9, top_k=20),
        Sampling(),
    ],
)
def test_the_untrained_prompter_is_drawn_as_the_trained_one(sampling):
    """Holds down: ρ_sft was drawn at temperature 1 beside a prompter at 0.4."""
    loaded: Any = SimpleNamespace(
        prompter=lambda bundle, adapter=1.0: SimpleNamespace(
            adapter=adapter, profile=SimpleNamespace(sampling=sampling)
        )
    )
    nowhere: Any = None
    learned, untrained = (
        as_partial(open_system(kind(name="x", bundle="b"), loaded, nowhere, {}))
        for kind in (PrompterSystemSection, ReferenceSystemSection)
    )
    assert learned.func is untrained.func
    assert learned.keywords["sampling"] == untrained.keywords["sampling"] == sampling
    assert learned.keywords["prompter"].adapter == 1.0
    assert untrained.keywords["prompter"].adapter == 0.0
    assert learned.keywords.keys() == untrained.keywords.keys(), "nothing else may differ"


GAINS = {"none": 0.0, "learned": 0.3, "untrained": 0.2, "hint": 0.35}


def summary_of(tmp_path, systems, rewards, **more):
    lineup = lineup_of(systems, **more)
    records = records_of(lineup, rewards)
    pools = answer_pools(
        lineup, bench_of(SpokenTarget()), records, Journal(tmp_path / "f", ""), print
    )
    return summarise(lineup, records, pools, (), {})


def scores(system, number):
    """Prompts differ by far more than systems do; what differs between prompts cancels in pairs."""
    wobble = 0.05 * (number % 3 - 1) * (system == "learned")
    base = 10.0 * number + GAINS[system] + wobble
    return (base - 0.1, base + 0.1)


def test_every_two_systems_are_compared_in_pairs_of_prompts(tmp_path):
    """Holds down: each was compared with no prompter alone, so learned minus ρ_sft was unknown."""
    systems = dict.fromkeys(GAINS, ("rivers",))
    found = summary_of(tmp_path, systems, scores, controls=("untrained", "hint"))
    pair = found.difference("learned", "untrained", JUDGE)
    assert pair.prompts == 4
    assert pair.gain.value == pytest.approx(0.1 - 0.05 / 4)
    assert 0 < pair.gain.low <= pair.gain.value <= pair.gain.high < 0.2
    turned = found.difference("untrained", "learned", JUDGE).gain
    assert (turned.value, turned.low, turned.high) == pytest.approx(
        (-pair.gain.value, -pair.gain.high, -pair.gain.low)
    )
    assert found.difference("learned", "none", JUDGE) is None, "that is a gain"
    sentence = next(v for v in verdicts(found) if v.text.startswith("learned beside"))
    assert "against untrained" in sentence.text
    assert "against hint" in sentence.text
    assert sentence.tone == "worse", "one sentence for all does better"


def test_pairs_are_compared_where_both_answered(tmp_path):
    systems = {"none": ("a", "b"), "learned": ("a", "b"), "untrained": ("b",)}
    found = summary_of(tmp_path, systems, scores, controls=("untrained",))
    assert found.difference("learned", "untrained", JUDGE).prompts == 4
    apart = {"none": ("a", "b"), "learned": ("a",), "untrained": ("b",)}
    found = summary_of(tmp_path, apart, scores, controls=("untrained",))
    assert found.difference("learned", "untrained", JUDGE) is None


def test_a_paired_difference_is_that_of_the_statistics(tmp_path):
    systems = dict.fromkeys(GAINS, ("rivers",))
    found = summary_of(tmp_path, systems, scores, prompts=9)
    own, other = (np.array([scores(s, n) for n in range(9)]) for s in ("learned", "hint"))
    assert found.difference("learned", "hint", JUDGE).gain == mean_difference(own, other, 0)


def none():
    return NoPrompterSection(name="none")


@pytest.mark.parametrize(
    ("systems", "expected"),
    [
        ([none()], {}),
        ([none(), PrompterSystemSection(name="p", bundle="hints")], {CONSTANT: "hints"}),
        ([none(), RhoStarSection(name="p", bundle="hints")], {CONSTANT: "hints"}),
        (
            [
                PrompterSystemSection(name="p", bundle="hints"),
                RhoStarSection(name="q", bundle="hints"),
                RhoStarSection(name="r", bundle="more hints"),
            ],
            {CONSTANT: "hints", f"{CONSTANT} 2": "more hints"},
        ),
        ([PrompterSystemSection(name="p", bundle="whole")], {}),
        (
            [
                PrompterSystemSection(name="p", bundle="whole"),
                PrompterSystemSection(name="q", bundle="hints"),
            ],
            {CONSTANT: "hints"},
        ),
        ([ReferenceSystemSection(name="p", bundle="hints")], {}),
        (
            [
                InstructionSection(name=CONSTANT, text="Be brief."),
                PrompterSystemSection(name="p", bundle="hints"),
            ],
            {f"{CONSTANT} 2": "hints"},
        ),
        ([GivenSection(name="BPO", path="p")], {}),
    ],
)
def test_every_prompter_is_held_against_a_constant_hint(systems, expected):
    """Holds down: the fixed row was a sentence that nobody had trained for."""
    added = constant_systems(systems, TEMPLATES.__getitem__)
    assert {name: section.bundle for name, section in added.items()} == expected
    assert all(name == section.name for name, section in added.items())


def test_a_constant_hint_answers_what_its_prompters_answer():
    some: list[AnySystem] = [
        PrompterSystemSection(name="p", bundle="hints", data=("a",)),
        RhoStarSection(name="q", bundle="hints", data=("b", "a")),
    ]
    (added,) = constant_systems(some, TEMPLATES.__getitem__).values()
    assert added.data == ("a", "b")
    everything: list[AnySystem] = [*some, PrompterSystemSection(name="r", bundle="hints")]
    (added,) = constant_systems(everything, TEMPLATES.__getitem__).values()
    assert added.data == ()


def worth(values):
    """A judge that finds the hint in an answer that repeats the prompt it was sent."""
    return lambda answer: next((v for hint, v in values.items() if answer.endswith(hint)), 0.0)


def test_the_best_of_the_frequent_hints_is_taken_not_the_most_frequent():
    hints = ["List it."] * 3 + ["Explain it."] * 2 + ["Rhyme."]
    bench = bench_of(
        SpokenTarget(), reward=worth({"List it.": 1.0, "Explain it.": 2.0, "Rhyme.": 0.5})
    )
    found = best_constant(bench, AUGMENT, ["a", "b"], hints, 0)
    assert found == ConstantHint("Explain it.", 2, 6, 3)
    assert found.rewrite(AUGMENT)("Why?") == "Why?\n\nExplain it."
    assert "chosen on prompts that are not judged" in found.note("hint")


def test_a_rare_hint_is_not_tried_however_good():
    """One hint for all is what the prompter has learned, not the luckiest thing it ever wrote."""
    hints = [f"Hint {n}." for n in range(4) for _ in range(2)] + ["Gold."]
    bench = bench_of(SpokenTarget(), reward=worth({"Gold.": 9.0, "Hint 2.": 1.0}))
    assert best_constant(bench, AUGMENT, ["a"], hints, 0).text == "Hint 2."


def test_without_prompts_to_spare_no_reward_chooses():
    """A choice by reward on the judged prompts would count its luck as a gain."""
    target = SpokenTarget()
    found = best_constant(bench_of(target), AUGMENT, [], ["A.", "B.", "B."], 0)
    assert (found.text, found.tried, target.asked) == ("B.", 1, [])
    assert "most often" in found.note("hint")


def test_a_prompter_that_writes_nothing_leaves_prompts_as_they_are():
    found = best_constant(bench_of(SpokenTarget()), AUGMENT, ["a"], [], 0)
    assert found.rewrite(AUGMENT)("Why? ") == "Why? "
    assert "adds nothing" in found.note("hint")


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_an_answer_without_a_score_does_not_stop_a_trial(score):
    """Training survives such answers, so the choice of a hint after it must."""
    bench = bench_of(SpokenTarget(), reward=lambda answer: score if "B" in answer else 1.0)
    assert best_constant(bench, AUGMENT, ["a", "c"], ["B.", "B.", "A."], 0).text == "A."
    bench = bench_of(SpokenTarget(), reward=lambda answer: math.nan)
    assert best_constant(bench, AUGMENT, ["a", "c"], ["A.", "B.", "B."], 0).text == "B."


def test_only_the_first_judge_chooses():
    bench = bench_of(
        SpokenTarget(),
        reward=worth({"A.": 2.0, "B.": 1.0}),
        second=worth({"A.": 0.0, "B.": 5.0}),
    )
    assert best_constant(bench, AUGMENT, ["a"], ["A.", "B."], 0).text == "A."


def test_a_choice_is_made_once(tmp_path):
    journal = Journal(tmp_path / "constants.jsonl", "run")
    hint = ConstantHint("A.", 1, 2, 1)
    assert remembered(journal, "hint", lambda: hint) == hint
    assert remembered(journal, "hint", lambda: pytest.fail("chosen again")) == hint
    assert remembered(journal, "hint 2", lambda: ConstantHint("B.", 1, 1, 1)).text == "B."
    journal.file.write_text('{"system": "hint", "text": "A.", "run": "run"}\n')
    with pytest.raises(InputError, match="Delete that line"):
        remembered(journal, "hint", lambda: hint)


@pytest.mark.parametrize("judged", [2, 6, 9])
def test_a_choice_never_sees_a_judged_prompt(tmp_path, monkeypatch, judged):
    places = places_in(tmp_path, monkeypatch)
    rows = [{"prompt": f"Name river {n}."} for n in range(10)]
    rows += [{"prompt": "Name lake 1."}]  # judged in another data set
    (tmp_path / "rivers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(places, NONE)
    rivers, lakes = config.data
    config = structs.replace(config, data=(structs.replace(rivers, prompts=judged), lakes))
    found = prompts_of(config, places)
    seen = {prompt for prompts in found.judged.values() for prompt in prompts}
    assert not seen & set(found.spare)
    every = seen | set(found.spare)
    assert len(found.spare) == len(set(found.spare)) == len(every) - len(seen)
    assert len(every) == 13


def test_sending_a_fixed_text_needs_no_prompter():
    target = SpokenTarget()
    response = send_fixed(bench_of(target), ["a", "b"], 0, rewrite=lambda prompt: f"{prompt}!")
    assert isinstance(response, Response)
    assert target.asked == ["a!", "a!", "b!", "b!"]
