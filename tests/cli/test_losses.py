"""Commands that read and write: nothing of the user's is lost, whatever is given as output."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from alignpro_lite.cli import exit_code_of
from tests.support import TINY_BUNDLE, TINY_TARGET


def run(*arguments: str) -> int:
    models = ("--target", str(TINY_TARGET), "--prompter", str(TINY_BUNDLE))
    return exit_code_of(["run", *models, "--max-tokens", "2", *arguments])


@pytest.fixture
def prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('"one"\n\nno json\n"two"\n', "utf-8")
    return Path("in.jsonl")


def test_a_batch_with_bad_lines_never_says_that_it_is_done(prompts, capsys):
    """The second run exited with 0: "already holds 3 of 3"."""
    line = ("--input", "in.jsonl", "--output", "out.jsonl", "--mode", "off")
    for _ in range(3):
        assert run(*line) == 1
        err = capsys.readouterr().err
        assert "1 of 3 lines could not be answered: line 3." in err
    prompts.write_text('"one"\n\n"corrected"\n"two"\n', "utf-8")
    assert run(*line) == 0
    assert run(*line) == 0
    records = [json.loads(text) for text in Path("out.jsonl").read_text("utf-8").splitlines()]
    assert [record["prompt"] for record in records] == ["one", "corrected", "two"]


@pytest.mark.parametrize("output", ["in.jsonl", "./in.jsonl", "sub/../in.jsonl", "link", "hard"])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows asks for rights to make links")
def test_prompts_are_not_taken_for_answers(prompts, capsys, output):
    Path("sub").mkdir()
    Path("link").symlink_to(prompts)
    os.link(prompts, "hard")
    before = prompts.read_bytes()
    assert run("--input", "in.jsonl", "--output", output) == 1
    err = capsys.readouterr().err
    assert "is the file of prompts itself" in err
    assert "delete" not in err
    assert prompts.read_bytes() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("output", ["/dev/null", "/dev/full", "/dev/zero"])
def test_devices_are_no_outputs(prompts, capsys, output):
    assert run("--input", "in.jsonl", "--output", output) == 1
    assert "Expected a file for the answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--target", "https://me:hunter2@host/x.gguf?sig=hunter2", "hi"],
        ["run", "--prompter", "https://me:hun/hunter2@host/x", "--target", str(TINY_TARGET), "hi"],
        ["run", "--input", "https://me:hunter2@host/x", "--output", "y"],
        ["models", "pull", "https://me:hunter2@host/x"],
        ["train", "reward", "--config", "https://me:hunter2@host/x", "--output", "y"],
        ["export", "target", "https://me:hunter2@host/x", "y.gguf"],
    ],
    ids=" ".join,
)
def test_an_address_in_the_place_of_a_file_does_not_show_its_password(capsys, arguments):
    assert exit_code_of(arguments) in (1, 2)
    out, err = capsys.readouterr()
    assert "Error: " in err
    assert "hunter2" not in out + err


def test_lack_of_memory_is_one_clear_line(monkeypatch, capsys):
    """It was a traceback."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("alignpro_lite.cli.options.ModelOptions.load", fail)
    assert exit_code_of(["run", "hi"]) == 1
    assert "not enough memory" in capsys.readouterr().err
