"""What every system is held against: ρ_sft drawn alike, one hint for all, and pair by pair."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import InputError
from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.bench import Response
from alignpro_lite.eval.config import (
    ConstantSection,
    PrompterSystemSection,
    ReferenceSystemSection,
)
from alignpro_lite.eval.frontier import answer_pools
from alignpro_lite.eval.inputs import prompts_of
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.loaded import open_system
from alignpro_lite.eval.report.verdicts import verdicts
from alignpro_lite.eval.systems import send_fixed
from alignpro_lite.experiment.prompts import prompt_position
from alignpro_lite.experiment.sections import PromptFileSection
from alignpro_lite.measure.statistics import mean_difference
from tests.eval.test_run import NONE, config_of, places_in
from tests.support.records import JUDGE, SpokenTarget, bench_of, lineup_of, records_of


def as_partial(system: Any) -> partial[Any]:
    assert isinstance(system, partial)
    return system


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
        as_partial(open_system(kind(name="x", bundle="b"), loaded, nowhere, {}, ""))
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


def test_training_prompts_choose_where_some_are_held_out(tmp_path, monkeypatch):
    """Holds down: held-out prompts that were not judged chose the hint, as if nobody kept them."""
    places = places_in(tmp_path, monkeypatch)
    config = config_of(places, NONE)
    rivers, lakes = config.data
    held_out = structs.replace(rivers, part="held_out", prompts=2)
    config = structs.replace(config, held_out=0.5, data=(held_out, lakes))
    spare = prompts_of(config, places).spare
    assert spare
    assert all(prompt_position(prompt) >= 0.5 for prompt in spare if "river" in prompt)


def test_files_of_their_own_may_choose_the_hint(tmp_path, monkeypatch):
    places = places_in(tmp_path, monkeypatch)
    rows = [{"prompt": "Name river 1."}, {"prompt": "Name sea 1."}, {"prompt": "Name sea 2."}]
    (tmp_path / "seas.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    own = ConstantSection(prompts=(PromptFileSection(path="seas.jsonl", format="prompt"),))
    found = prompts_of(structs.replace(config_of(places, NONE), constant=own), places)
    assert sorted(found.spare) == ["Name sea 1.", "Name sea 2."], "a judged prompt never chooses"


def test_a_data_set_may_name_the_kinds_of_its_prompts(tmp_path, monkeypatch):
    places = places_in(tmp_path, monkeypatch)
    rows = [{"prompt": f"Name lake {n}.", "sort": "water" if n else ""} for n in range(3)]
    (tmp_path / "lakes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = config_of(places, NONE)
    rivers, lakes = config.data
    config = structs.replace(config, data=(rivers, structs.replace(lakes, kind_key="sort")))
    kinds = prompts_of(config, places).kinds
    assert kinds == {"Name lake 1.": "water", "Name lake 2.": "water"}
    lineup = replace(lineup_of({"none": ("a",)}), kinds=kinds)
    assert lineup.kind("Name lake 1.") == "water"
    assert lineup.kind("Is it a lake?") == "short answer"
    wrong = structs.replace(config, data=(rivers, structs.replace(lakes, kind_key="kind")))
    with pytest.raises(InputError, match="must hold rows with 'kind'"):
        prompts_of(wrong, places)


def test_sending_a_fixed_text_needs_no_prompter():
    target = SpokenTarget()
    response = send_fixed(bench_of(target), ["a", "b"], 0, rewrite=lambda prompt: f"{prompt}!")
    assert isinstance(response, Response)
    assert target.asked == ["a!", "a!", "b!", "b!"]
