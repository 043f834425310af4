"""--json-schema, --grammar and --log-probs."""

from __future__ import annotations

import io
import json
import re

import pytest

from alignpro_lite import Gbnf, Request
from alignpro_lite.cli import exit_code_of
from alignpro_lite.cli.chat import Conversation
from tests.support import TINY_BUNDLE, TINY_TARGET

MODELS = ["--target", str(TINY_TARGET), "--prompter", str(TINY_BUNDLE), "--device", "cpu"]
SCHEMA = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]} | {
    "additionalProperties": False
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), "utf-8-sig")
    (tmp_path / "yes.gbnf").write_text('root ::= "yes" | "no"\n', "utf-8")
    return tmp_path


def run(*arguments) -> int:
    return exit_code_of(["run", *MODELS, *map(str, arguments)])


def test_the_answer_has_the_form_and_the_prompt_is_kept(files, capsys):
    assert run("Hello", "--json-schema", files / "schema.json", "--seed", 1) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["a"] in (1, 2)
    assert "The prompt is not rewritten: the answer has a given form; --mode on rewrites it." in err


def test_a_mode_that_asks_for_a_rewrite_gets_one(files, capsys):
    grammar = ["--grammar", files / "yes.gbnf", "--seed", 1, "--json"]
    assert run("Hello", *grammar, "--mode", "on") == 0
    asked = json.loads(capsys.readouterr().out)
    assert run("Hello", *grammar) == 0
    usual = json.loads(capsys.readouterr().out)
    assert asked["rewrite"] is not None
    assert usual["rewrite"] is None
    assert {asked["answer"], usual["answer"]} <= {"yes", "no"}


def test_the_tokens_of_the_answer_are_listed(files, capsys):
    grammar = ["--grammar", files / "yes.gbnf", "--log-probs", 2]
    assert run("Hello", *grammar, "--json", "--seed", 1) == 0
    found = json.loads(capsys.readouterr().out)
    assert "".join(token["text"] for token in found["log_probs"]) == found["answer"]
    assert all(len(token["alternatives"]) == 2 for token in found["log_probs"])
    assert run("Hello", "--json", "--seed", 1, "--max-tokens", 3) == 0
    assert "log_probs" not in json.loads(capsys.readouterr().out)


def test_every_line_of_a_file_has_the_form(files, capsys):
    (files / "in.jsonl").write_text('"Hello"\n"Goodbye"\n', "utf-8")
    batch = ["--input", files / "in.jsonl", "--output", files / "out.jsonl", "--quiet"]
    assert run(*batch, "--json-schema", files / "schema.json", "--log-probs", 0) == 0
    lines = [json.loads(line) for line in (files / "out.jsonl").read_text("utf-8").splitlines()]
    assert all(json.loads(line["answer"])["a"] in (1, 2) for line in lines)
    assert all(line["log_probs"] for line in lines)


@pytest.mark.parametrize(
    ("option", "file", "answer"),
    [
        ("--json-schema", "schema.json", r'\{\s*"a"\s*:\s*[12]\s*\}'),
        ("--grammar", "yes.gbnf", "yes|no"),
    ],
)
def test_every_answer_of_a_chat_has_the_form(files, monkeypatch, capsys, option, file, answer):
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\nGoodbye\n"))
    assert exit_code_of(["chat", *MODELS, option, str(files / file), "--seed", "1"]) == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(rf"(?:(?:{answer})\n){{2}}", out)
    assert "Prompts are not rewritten: the answer has a given form; /rewrite on" in err


def test_a_chat_with_a_form_rewrites_when_it_is_told_to(tiny_model, capsys):
    talk = Conversation(tiny_model, Request(constraint=Gbnf('root ::= "yes"')))
    drawn = []
    for command in ("", "/rewrite on", "/rewrite off"):
        talk.take(command)
        talk.take("Hello")
        drawn.append(talk._last is not None and talk._last.rewrite is not None)
    assert drawn == [False, True, False]
    assert capsys.readouterr().out == "yes\n" * 3


def test_a_chat_does_not_begin_with_two_forms_or_a_bad_one(files, capsys):
    forms = ["--json-schema", str(files / "schema.json"), "--grammar", str(files / "yes.gbnf")]
    assert exit_code_of(["chat", *forms]) == 2
    (files / "yes.gbnf").write_text("root ::= (", "utf-8")
    assert exit_code_of(["chat", "--target", "no-such-model", *forms[2:]]) == 1
    assert "lacks a )" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("--json-schema", b"{", "must hold a JSON schema"),
        ("--json-schema", b"[" * 100_000, "must hold a JSON schema"),
        ("--json-schema", b"[1]", "must be an object, found list"),
        ("--json-schema", b'{"const": NaN}', "not JSON"),
        ("--json-schema", b'{"uniqueItems": true}', "uniqueItems"),
        ("--json-schema", b"\xff\xfe\x00", "UTF-8"),
        ("--grammar", b"root ::= (", "lacks a )"),
        ("--grammar", b"", "no rule root"),
    ],
)
def test_a_bad_file_is_one_line_before_any_model_is_loaded(tmp_path, capsys, name, content, words):
    file = tmp_path / "form"
    file.write_bytes(content)
    assert exit_code_of(["run", "Hello", "--target", "no-such-model", name, str(file)]) == 1
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json-schema", "schema.json", "--grammar", "yes.gbnf"],
        ["--log-probs", "2"],
        ["--log-probs", "21", "--json"],
        ["--json-schema", "missing.json"],
    ],
)
def test_wrong_usage_is_2(files, monkeypatch, capsys, arguments):
    monkeypatch.chdir(files)
    assert exit_code_of(["run", "Hello", *arguments]) == 2


def test_a_penalty_outside_its_range_is_one_line(capsys):
    assert exit_code_of(["run", "Hello", "--presence-penalty", "3"]) == 1
    assert "presence penalty must be -2 to 2, found 3.0" in capsys.readouterr().err
