"""`rewrite` shows what the prompter wrote, and says what cannot be seen of it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from alignpro_lite import Sampling
from alignpro_lite.cli import exit_code_of
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.prompter.template import TEMPLATES

PROMPT = "How do I stay safe online?"


class Loaded(nullcontext):
    """A loaded prompter that has its rewrites ready."""

    def __init__(self, mode, rewrites, nothing):
        super().__init__(self)
        self.profile = SimpleNamespace(sampling=Sampling(), doubt=0.1)
        self.template = TEMPLATES[mode]
        self.rewrite = lambda *_: rewrites
        self.encode = lambda text: (2,)
        self.score = lambda *_: [math.log(nothing)]


@pytest.fixture
def written(monkeypatch):
    """Lets the command load a prompter that writes what it is told."""

    def load(mode, output, finish="stop", nothing=0.01):
        text = TEMPLATES[mode].apply(PROMPT, output)
        rewrite = Rewrite(text, output, (1, 2), -1.5, -1.5, finish)
        loaded = Loaded(mode, [rewrite], nothing)
        monkeypatch.setattr("alignpro_lite.loading.open_prompter", lambda *_: loaded)

    return load


@pytest.mark.parametrize(
    ("mode", "output", "remark"),
    [
        ("augment", "Name three steps.", ""),
        ("augment", " \n", " (the hint is empty: the prompt goes out as it is)"),
        ("rewrite", PROMPT, " (the prompt goes out as it is)"),
        ("rewrite", "", " (`run` would not use it: the rewrite was empty)"),
    ],
)
def test_a_hint_that_is_empty_is_told(written, capsys, mode, output, remark):
    """Holds down: the prompt was printed once more, as if the prompter had written it."""
    written(mode, output)
    assert exit_code_of(["rewrite", PROMPT]) == 0
    out, err = capsys.readouterr()
    assert out == TEMPLATES[mode].apply(PROMPT, output) + "\n"
    assert err == f"log-probability -1.50, 2 tokens{remark}\n"


def test_an_empty_hint_that_was_cut_is_refused_and_not_called_empty(written, capsys):
    written("augment", "", "length")
    assert exit_code_of(["rewrite", PROMPT]) == 0
    assert "would not use it: the rewrite rambled" in capsys.readouterr().err


def test_a_hint_that_run_would_not_use_is_named(written, capsys):
    """`rewrite` showed hints that `run` never sends, because its prompter is in doubt."""
    written("augment", "Name three steps.", nothing=0.2)
    assert exit_code_of(["rewrite", PROMPT]) == 0
    assert "would not use it: the prompter doubts that a hint helps" in capsys.readouterr().err
