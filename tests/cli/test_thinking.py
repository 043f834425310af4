"""--thinking and --show-thinking: stdout has the answer alone, whatever the target thinks."""

from __future__ import annotations

import io
import json
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from alignpro_lite import AlignedModel
from alignpro_lite.cli import exit_code_of, options
from alignpro_lite.cli.chat import Conversation
from alignpro_lite.rewriting.request import Request
from tests.support import reasoning_models as models

THOUGHT = "<think>\nIt is a sum.\n</think>\n\nIt is 357."
STILL_THINKING = "The target was still thinking at --max-tokens 6, so there is no answer."
SUMMED = ["What is 12 + 345?", "--mode", "off", "--max-tokens", "200"]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Lets the command line load a target of a template that replies as it is told."""
    targets = []

    def loaded(template=models.ALWAYS, *replies) -> AlignedModel:
        models.script(monkeypatch, replies or [THOUGHT])
        targets.append(models.open_target(models.write(tmp_path / "m.gguf", template)))
        plan: Any = SimpleNamespace(notes=())
        model = AlignedModel(targets[-1], None, plan)
        monkeypatch.setattr(options.ModelOptions, "load", lambda *_, **__: nullcontext(model))
        return model

    yield loaded
    for target in targets:
        target.close()


def test_a_thought_goes_to_stderr_if_it_is_asked_for(load, capsys):
    load()
    assert exit_code_of(["run", *SUMMED, "--show-thinking"]) == 0
    out, err = capsys.readouterr()
    assert out == "It is 357.\n"
    assert err.startswith("It is a sum.\n\nrewrite")


def test_a_thought_that_is_not_shown_is_mentioned_once(load, capsys):
    load()
    assert exit_code_of(["run", *SUMMED]) == 0
    out, err = capsys.readouterr()
    assert out == "It is 357.\n"
    assert err.startswith("Thinking; --show-thinking shows it.\nrewrite")


def test_quiet_says_nothing_about_a_thought(load, capsys):
    load()
    assert exit_code_of(["run", *SUMMED, "--quiet"]) == 0
    assert capsys.readouterr() == ("It is 357.\n", "")


def test_json_has_the_thought_in_a_field_of_its_own(load, capsys):
    load()
    assert exit_code_of(["run", *SUMMED, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["reasoning"], found["answer"]) == ("It is a sum.", "It is 357.")


def test_a_thought_that_was_cut_is_told_with_its_cure(load, capsys):
    """Holds down: exit code 0 and an empty line, which a pipeline took for the answer."""
    load()
    assert exit_code_of(["run", *SUMMED[:-1], "6", "--quiet"]) == 1
    assert capsys.readouterr() == (
        "",
        f"Error: {STILL_THINKING} Raise it, or try --thinking off.\n",
    )
    assert exit_code_of(["run", *SUMMED[:-1], "6", "--show-thinking"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("It is a\nrewrite")


def test_json_has_the_thought_also_if_there_is_no_answer(load, capsys):
    load()
    assert exit_code_of(["run", *SUMMED[:-1], "6", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["reasoning"].startswith("It")
    assert json.loads(out)["answer"] == ""
    assert STILL_THINKING in err


def test_a_reply_that_ends_behind_its_thought_is_no_answer(load, capsys):
    load(models.ALWAYS, "<think>\nIt is a sum.\n</think>\n\n")
    assert exit_code_of(["run", *SUMMED]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(
        "Error: The target thought, and ended without an answer. Try another --seed, or try "
        "--thinking off.\n"
    )


def test_a_line_without_an_answer_has_an_error(load, tmp_path, capsys):
    """Holds down: its record had an empty answer, and was never tried again."""
    load(models.ALWAYS, THOUGHT)
    prompts, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('"a"\n', encoding="utf-8")
    files = ["--input", str(prompts), "--output", str(answers), "--mode", "off", "--quiet"]
    assert exit_code_of(["run", *files, "--max-tokens", "6"]) == 1
    assert STILL_THINKING in json.loads(answers.read_text(encoding="utf-8"))["error"]
    assert exit_code_of(["run", *files, "--max-tokens", "100"]) == 0
    assert json.loads(answers.read_text(encoding="utf-8"))["answer"] == "It is 357."


def test_a_chat_goes_on_after_a_thought_without_an_answer(load, capsys, monkeypatch):
    load()
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\nHello\n"))
    assert exit_code_of(["chat", "--max-tokens", "6"]) == 0
    assert capsys.readouterr().err.count(f"Error: {STILL_THINKING}") == 2


def test_a_thought_that_was_cut_though_it_was_turned_off_has_no_such_cure(load, capsys):
    """Holds down: the advice was what the user had done."""
    load(models.SWITCH)
    assert exit_code_of(["run", *SUMMED[:-1], "6", "--thinking", "off"]) == 1
    assert capsys.readouterr().err.rstrip().endswith("there is no answer. Raise it.")


def test_the_switch_reaches_the_template(load, capsys, monkeypatch):
    model = load(models.SWITCH, "It is 357.")
    asked = []
    answer = model.target.answer

    def noted(question):
        asked.append(question)
        return answer(question)

    monkeypatch.setattr(model.target, "answer", noted)
    assert exit_code_of(["run", *SUMMED, "--thinking", "off"]) == 0
    assert [question.thinking for question in asked] == ["off"]
    assert capsys.readouterr().out == "It is 357.\n"


def test_a_switch_that_is_missing_is_one_line(load, capsys):
    load(models.PLAIN)
    assert exit_code_of(["run", *SUMMED, "--thinking", "on"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "Error: Thinking cannot be turned on: the model's chat template has no switch for it, it "
        "does not think. Leave --thinking out, or use another model.\n"
    )


def test_a_chat_is_refused_once_and_not_line_by_line(load, capsys, monkeypatch):
    """Holds down: a chat began that answered every line with the same error."""
    load(models.PLAIN)
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\nHello\n"))
    assert exit_code_of(["chat", "--thinking", "on"]) == 1
    assert capsys.readouterr().err.count("Thinking cannot be turned on") == 1


def test_a_file_of_prompts_is_refused_once_and_not_line_by_line(load, tmp_path, capsys):
    load(models.PLAIN)
    prompts, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('"a"\n"b"\n', encoding="utf-8")
    files = ["--input", str(prompts), "--output", str(answers), "--mode", "off", "--quiet"]
    assert exit_code_of(["run", *files, "--thinking", "on"]) == 1
    assert capsys.readouterr().err.count("Thinking cannot be turned on") == 1
    assert not answers.exists()


def test_answers_to_a_file_keep_their_thoughts_apart(load, tmp_path):
    load()
    prompts, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    prompts.write_text('"a"\n"b"\n', encoding="utf-8")
    files = ["--input", str(prompts), "--output", str(answers), "--mode", "off", "--quiet"]
    assert exit_code_of(["run", *files, "--max-tokens", "100"]) == 0
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert [(row["reasoning"], row["answer"]) for row in rows] == [
        ("It is a sum.", "It is 357.")
    ] * 2


def test_a_thought_is_shown_to_a_person_and_no_file():
    assert exit_code_of(["run", "--input", __file__, "--output", "x", "--show-thinking"]) == 2


def test_a_chat_remembers_the_answer_and_its_thought_apart(load, tmp_path, capsys):
    """Holds down: old thoughts filled the context of a chat, and templates could not cut them."""
    model = load()
    talk = Conversation(model, Request(max_tokens=100), show_thinking=True)
    talk.take("What is 12 + 345?")
    out, err = capsys.readouterr()
    assert (out, err) == ("It is 357.\n", "It is a sum.\n\n")
    question, answer = talk._history
    assert (question.content, question.reasoning) == ("What is 12 + 345?", "")
    assert (answer.content, answer.reasoning) == ("It is 357.", "It is a sum.")
    file = tmp_path / "talk.json"
    talk.take(f"/save {file}")
    assert json.loads(file.read_text(encoding="utf-8"))["messages"][1] == {
        "role": "assistant",
        "content": "It is 357.",
        "reasoning_content": "It is a sum.",
    }
    talk.take("And twice that?")
    assert capsys.readouterr().out == "It is 357.\n"
