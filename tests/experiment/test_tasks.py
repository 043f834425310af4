"""Prompts with references: where they come from, and what is left out."""

from __future__ import annotations

import json

import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.models import load_prompts
from alignpro_lite.experiment.prompts import Task, read_tasks, references_of
from alignpro_lite.experiment.sections import PromptDataSection, PromptSourceSection
from alignpro_lite.reward.exchange import TaskReference

GSM8K = {"question": " How many? ", "answer": "9 * 2 = <<9*2=18>>18\n#### 18"}
IFEVAL = {
    "key": 1,
    "prompt": "Say it without a comma. ",
    "instruction_id_list": ["punctuation:no_comma"],
    "kwargs": [{}],
}


def written(folder, *rows):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_gsm8k_is_read_as_published(tmp_path):
    (task,), bad = read_tasks(written(tmp_path, GSM8K), "gsm8k")
    assert task == Task("How many?", TaskReference("gsm8k", GSM8K["answer"]))
    assert bad == []


def test_ifeval_is_read_as_published(tmp_path):
    (task,), _ = read_tasks(written(tmp_path, IFEVAL), "ifeval")
    assert task.prompt == "Say it without a comma."
    assert task.reference is not None
    assert task.reference.check == "ifeval"
    assert json.loads(task.reference.text) == {
        key: IFEVAL[key] for key in ("instruction_id_list", "kwargs")
    }


@pytest.mark.parametrize(
    ("form", "row", "reason"),
    [
        ("gsm8k", {"question": "q"}, "expected text under 'answer'"),
        ("gsm8k", {"question": "q", "answer": 18}, "expected text under 'answer'"),
        ("gsm8k", {"answer": "#### 1"}, "expected text under 'question'"),
        ("ifeval", IFEVAL | {"kwargs": []}, "lists of one length under 'instruction_id_list'"),
        ("ifeval", IFEVAL | {"kwargs": {}}, "lists of one length"),
        ("ifeval", {"prompt": "p"}, "lists of one length"),
        ("prompt", {"prompt": "p"}, "expected text under 'label'"),
        ("prompt", {"prompt": "p", "label": " "}, "expected text under 'label'"),
        ("prompt", {"prompt": "p", "label": True}, "expected text under 'label'"),
    ],
)
def test_a_row_without_a_usable_reference_is_left_out_with_its_reason(tmp_path, form, row, reason):
    good = {"gsm8k": GSM8K, "ifeval": IFEVAL, "prompt": {"prompt": "p", "label": "x"}}[form]
    key = "label" if form == "prompt" else None
    tasks, (bad,) = read_tasks(written(tmp_path, row, *[good] * 30), form, key)
    assert len(tasks) == 30
    assert bad.startswith("row 1 left out")
    assert reason in bad


@pytest.mark.parametrize(("value", "text"), [("Paris ", "Paris"), (18, "18"), (0.5, "0.5")])
def test_any_key_can_hold_the_right_answer(tmp_path, value, text):
    file = written(tmp_path, {"instruction": "Capital?", "label": value})
    (task,), _ = read_tasks(file, "instruction", "label")
    assert task == Task("Capital?", TaskReference("exact", text))


def test_of_a_repeated_prompt_the_first_reference_counts():
    first, second = TaskReference("exact", "a"), TaskReference("exact", "b")
    tasks = [Task("p"), Task("p", first), Task("p", second), Task("q")]
    assert references_of(tasks) == {"p": first}


def test_the_prompts_of_a_run_keep_their_references(tmp_path):
    rows = [{"question": f"How many, {n}?", "answer": f"#### {n}"} for n in range(40)]
    written(tmp_path, *rows)
    section = PromptDataSection((PromptSourceSection("rows.jsonl", "gsm8k"),))
    prompts = load_prompts(section, tmp_path, lambda text: range(len(text)), 0, lambda text: None)
    assert set(prompts.references) == {*prompts.train, *prompts.held_out}
    assert prompts.references["How many, 7?"] == TaskReference("gsm8k", "#### 7")


def test_of_a_file_only_the_first_rows_may_be_taken(tmp_path):
    """Of two files of different sizes, the smaller one would hardly be trained on."""
    written(tmp_path, *[{"question": f"How many, {n}?", "answer": f"#### {n}"} for n in range(40)])
    section = PromptDataSection((PromptSourceSection("rows.jsonl", "gsm8k", most=9),))
    prompts = load_prompts(section, tmp_path, lambda text: range(len(text)), 0, lambda text: None)
    assert {*prompts.train, *prompts.held_out} == {f"How many, {n}?" for n in range(9)}


def test_a_file_in_which_no_row_has_the_key_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found 1 bad ones of 1.*'label'"):
        read_tasks(written(tmp_path, {"prompt": "p"}), "prompt", "label")
