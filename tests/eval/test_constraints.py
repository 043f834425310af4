"""Evaluations on tasks whose answers can be checked: references, refusals, IFEval's accuracies."""

from __future__ import annotations

import json

import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.eval.config import EvalConfig
from alignpro_lite.eval.constraints import constraint_accuracies
from alignpro_lite.eval.evaluate import evaluate
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.experiment.config import read_config
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.measure.shares import pooled_share
from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.exchange import TaskReference
from alignpro_lite.reward.ifeval import constraints_as_text
from tests.support import TINY_TARGET
from tests.support.records import lineup_of

CONFIG = """
[target]
kind = "gguf"
source = "{target}"
context = 2048
[answers]
count = 2
max_tokens = 4
[[data]]
name = "sums"
path = "sums.jsonl"
format = "gsm8k"
part = "all"
[[data]]
name = "orders"
path = "orders.jsonl"
format = "{form}"
part = "all"
[[judge]]
name = "right"
reward = [{{ kind = "check", source = "task", weights = {{ right = 1.0 }} }}]
[[system]]
name = "none"
kind = "none"
[[system]]
name = "best"
kind = "best_of"
samples = 2
"""
LOWER, NO_COMMA = "change_case:english_lowercase", "punctuation:no_comma"


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "sums.jsonl", [sum_of(number) for number in range(3)])
    orders = [
        {"prompt": f"Order {n}.", "instruction_id_list": [NO_COMMA], "kwargs": [{}]}
        for n in range(3)
    ]
    write(tmp_path / "orders.jsonl", orders)
    return Places(tmp_path, tmp_path / "out", ModelStore.open())


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sum_of(number, total=7):
    return {"question": f"How many, {number}?", "answer": f"#### {total}"}


def config_of(places, form="ifeval") -> EvalConfig:
    file = places.data / "eval.toml"
    file.write_text(CONFIG.format(target=TINY_TARGET, form=form))
    return read_config(file, EvalConfig)


def silent(text):
    pass


def test_each_prompt_is_judged_by_the_check_of_its_data(places):
    summary = evaluate(config_of(places), places, silent)
    sums, orders = (summary.cell(data, "none", "right") for data in ("sums", "orders"))
    assert sums.mean.value == 0, "the tiny model cannot count"
    assert orders.mean.value == 1, "nor does it write commas"
    (none, best) = summary.constraints
    assert (none.data, none.system, best.system) == ("orders", "none", "best")
    assert none.prompt_strict.value == none.constraint_loose.value == 1
    text = (places.run / "summary.md").read_text()
    assert "## Constraints followed" in text
    assert "not known" not in text, "a check is right by definition"
    assert "Constraints followed" in (places.run / "report.html").read_text()
    assert evaluate(config_of(places), places, silent).constraints == summary.constraints


def test_references_that_changed_are_refused(places):
    """Scores by other references would stand beside those that are already there."""
    evaluate(config_of(places), places, silent)
    write(places.data / "sums.jsonl", [sum_of(number, total=8) for number in range(3)])
    with pytest.raises(InputError, match="started with other texts of references sums"):
        evaluate(config_of(places), places, silent)


def test_a_check_of_prompts_without_references_is_refused_before_anything_is_written(places):
    """All their answers would count as wrong."""
    config = config_of(places, "prompt")
    with pytest.raises(InputError, match="3 of 3 prompts of orders have none") as caught:
        evaluate(config, places, silent)
    assert "in data orders" in caught.value.cure
    assert not (places.run / "config.json").exists()


def test_an_unknown_constraint_is_refused_before_anything_is_written(places):
    rows = [{"prompt": "p", "instruction_id_list": ["a:haiku"], "kwargs": [{}]}] * 3
    rows[1] = rows[1] | {"prompt": "q"}
    write(places.data / "orders.jsonl", rows)
    with pytest.raises(InputError, match="The prompt 'p': its constraint 'a:haiku' is unknown"):
        evaluate(config_of(places), places, silent)
    assert not (places.run / "config.json").exists()


def test_accuracies_are_those_of_ifeval():
    """Two constraints on one prompt weigh twice as much by constraint, and once by prompt."""
    both = constraints_as_text({"instruction_id_list": [LOWER, NO_COMMA], "kwargs": [{}, {}]})
    alone = constraints_as_text({"instruction_id_list": [NO_COMMA], "kwargs": [{}]})
    lineup = lineup_of({"none": ("d",)}, prompts=2)
    references = {"d 0": TaskReference("ifeval", both), "d 1": TaskReference("ifeval", alone)}
    answers = {
        "d 0": ("Sure thing:\nthis is a small answer", "so, this is an answer with Capitals"),
        "d 1": ("one, two", "one and two"),
    }
    records = [row_of(number, prompt, answers[prompt]) for number, prompt in enumerate(answers)]
    (found,) = constraint_accuracies(lineup, records, references)
    assert (found.prompts, found.constraints) == (2, 3)
    assert found.prompt_strict.value == pytest.approx((0 + 1 / 2) / 2)
    assert found.constraint_strict.value == pytest.approx((1 / 2 + 1 / 2) / 3)
    assert found.prompt_loose.value == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert found.constraint_loose.value == pytest.approx((1 + 1 / 2) / 3)


def row_of(number, prompt, answers):
    return ResultRow(
        data="d",
        system="none",
        number=number,
        prompt=prompt,
        sent=(prompt,) * len(answers),
        answers=answers,
        rewards={},
        log_ratios=(),
        reason="",
        seconds=0.0,
        cut=(False,) * len(answers),
    )


def test_a_pooled_share_counts_trials_and_resamples_prompts():
    import numpy as np

    found = pooled_share(np.array([1.0, 3.0]), np.array([1.0, 9.0]), seed=0)
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((3 / 9, 1.0))
