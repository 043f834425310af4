"""`run --mode approve`: the user decides what is sent."""

from __future__ import annotations

import sys
from typing import Any

import click
import pytest

from alignpro_lite import AlignedStream, Request
from alignpro_lite.cli.run import DisplayOptions, _confirm_rewrite
from alignpro_lite.errors import InputError
from alignpro_lite.rewriting.draw import CHOSEN_BY_USER, KEPT_BY_USER, DrawModels
from alignpro_lite.rewriting.spans import protect
from tests.support.scripted_models import PROMPT, FakePrompter, FakeTarget

REWRITE = f"{PROMPT}\n\nName the risks."
APPROVE = DisplayOptions("approve", False, False, False, False, False)


@pytest.fixture
def asked(monkeypatch):
    """Answer the questions of the command with given replies; the stream afterwards."""

    def ask(*replies: str) -> tuple[bool, AlignedStream]:
        left = iter(replies)
        monkeypatch.setattr(click, "prompt", lambda *_, **__: next(left))
        prompter: Any = FakePrompter([REWRITE])
        target: Any = FakeTarget()
        stream = AlignedStream(DrawModels(prompter, target, None), protect(PROMPT), Request())
        answers = _confirm_rewrite(stream, APPROVE)
        assert next(left, None) is None
        return answers, stream

    return ask


@pytest.fixture
def editor(monkeypatch, tmp_path):
    """Make a program the editor; `FILE` in its code is the path of the text."""

    def install(code: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(f"import sys\nFILE = sys.argv[1]\n{code}\n", encoding="utf-8")
        monkeypatch.setenv("VISUAL", f"'{sys.executable}' '{script}'")

    return install


def test_yes_sends_the_rewrite_and_no_the_prompt_and_quit_nothing(asked):
    assert asked("y")[1].choice.sent == REWRITE
    answers, stream = asked("n")
    assert (answers, stream.choice.sent, stream.choice.reason) == (True, PROMPT, KEPT_BY_USER)
    assert not asked("q")[0]


def test_edit_sends_what_was_saved_and_shows_the_difference(asked, editor, capsys):
    editor(
        "text = open(FILE, encoding='utf-8').read()\n"
        "open(FILE, 'w', encoding='utf-8').write(text.replace('risks', 'größten risks') + '\\n')"
    )
    answers, stream = asked("e")
    assert answers
    assert stream.choice.sent == REWRITE.replace("risks", "größten risks")
    assert stream.choice.reason == CHOSEN_BY_USER
    assert "größten" in capsys.readouterr().err


def test_what_was_not_saved_is_asked_about_again(asked, editor):
    editor("pass")
    assert asked("e", "e", "y")[1].choice.sent == REWRITE


def test_an_editor_that_fails_is_an_error_with_a_cure(asked, editor):
    editor("sys.exit(3)")
    with pytest.raises(InputError, match=r"Editing failed\. Set \$EDITOR"):
        asked("e")


@pytest.mark.parametrize("saved", [b"", b"  \n", b"caf\xe9"], ids=ascii)
def test_what_is_no_prompt_is_refused(asked, editor, saved):
    editor(f"open(FILE, 'wb').write({saved!r})")
    with pytest.raises(InputError):
        asked("e")
