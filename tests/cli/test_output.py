"""What commands print about a rewrite."""

from __future__ import annotations

import math
import re
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.cli.options import DrawOptions
from alignpro_lite.cli.output import marked, result_json, show_certificate, show_plan_notes
from alignpro_lite.rewriting.certificate import Certificate, word_changes
from alignpro_lite.rewriting.guard import gain
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.result import Choice, Result, Timings
from alignpro_lite.rewriting.rho_star import Diagnostics


def plain(before: str, after: str) -> str:
    return click.unstyle(marked(word_changes(before, after)))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("same words", "same words", "same words"),
        ("why sky blue", "why is sky blue", "why{+ is+} sky blue"),
        ("tell me more", "tell me", "tell me[- more-]"),
        ("a cat sat", "a dog sat", "a [-cat-]{+dog+} sat"),
        ("", "new", "{+new+}"),
        ("old", "", "[-old-]"),
        ("", "", ""),
        ("x", "x\n\nName the cause.", "x{+\n\nName the cause.+}"),
        ("größe 🙂", "größe 🙃", "größe [-🙂-]{+🙃+}"),
    ],
)
def test_changed_words_are_marked_and_white_space_is_kept(before, after, expected):
    assert plain(before, after) == expected


@given(st.text("ab \n", max_size=40), st.text("ab \n", max_size=40))
def test_both_texts_can_be_read_out_of_the_difference(before, after):
    marked = plain(before, after)
    without_new = re.sub(r"\{\+.*?\+\}", "", marked, flags=re.DOTALL)
    without_old = re.sub(r"\[-.*?-\]", "", marked, flags=re.DOTALL)
    assert re.sub(r"\[-(.*?)-\]", r"\1", without_new, flags=re.DOTALL) == before
    assert re.sub(r"\{\+(.*?)\+\}", r"\1", without_old, flags=re.DOTALL) == after


def test_a_long_prompt_is_compared_at_once():
    """Two thousand words took four minutes, because every space was compared with every other."""
    before = " ".join(f"w{i % 500}" for i in range(3000))
    after = " ".join(f"v{i % 500}" for i in range(3000))
    begun = time.monotonic()
    word_changes(before, after)
    word_changes(before, before + " and one sentence of guidance")
    assert time.monotonic() - begun < 2


def certificate(error: float, judged: list[float]) -> Certificate:
    return Certificate(
        reason="drawn from ρ*",
        changes=(),
        strength=0.02,
        answers=2,
        diagnostics=Diagnostics(8, 3.2, 5.0, error, 0.4, 0.1, 0.1, 0.31, 1.5, 0.35),
        gain=gain(np.array(judged), np.array([0.0, 0.1]), 0.05),
    )


def test_an_error_of_log_z_that_is_not_known_is_called_so(capsys):
    """Holds down: an effective sample of 1 or 2 was printed with an error that means nothing."""
    show_certificate(certificate(0.25, [0.3, 0.2]))
    assert "log Z        5.00 ± 0.25" in capsys.readouterr().err
    show_certificate(certificate(math.inf, [0.3, 0.2]))
    assert "log Z        5.00, unreliable: too few effective samples" in capsys.readouterr().err


def test_a_gain_says_what_it_rests_on(capsys):
    show_certificate(certificate(0.25, [0.3, 0.2]))
    shown = capsys.readouterr().err
    assert "gain         +0.050 expected from all answers" in shown
    assert "fresh gain   +0.200, above" in shown
    show_certificate(certificate(0.25, []))
    assert "fresh gain" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, "balanced"), ("balanced", "balanced"), ("strict", "strict"), ("off", "off")],
)
def test_the_risk_level_reaches_the_library(given, expected):
    options = DrawOptions("default", 8, None, 2, given, None, "scored")
    assert options.settings().guard == expected
    assert RhoStar().guard == "balanced"


def test_a_note_is_one_line_that_no_terminal_obeys(capsys):
    """The name of a prompter in its bundle wrote lines of its own, and cleared the screen."""
    plan = SimpleNamespace(notes=("The prompter a\x1b[2J\nError: b\x07 was not trained.",))
    show_plan_notes(cast(Any, SimpleNamespace(plan=plan)))
    assert capsys.readouterr().err == (
        "Note: The prompter a\\x1b[2J Error: b\\x07 was not trained.\n"
    )


def test_what_scoring_took_stands_beside_the_other_times():
    """In the certificate it would make two runs of the same seed differ."""
    choice = Choice("x", "x", None, replace(certificate(0.25, []), scoring_seconds=1.25, rivals=2))
    result = Result(choice, "y", "", False, "stop", 1, Timings(2.0, 2.5, 3.0))
    found = result_json(result, Request())
    assert found["seconds"]["scoring"] == 1.25
    assert found["certificate"]["rivals"] == 2
    assert "scoring_seconds" not in found["certificate"]


def test_a_draw_that_was_judged_says_by_what_and_at_what_cost(capsys):
    found = replace(certificate(0.25, []), target_tokens=90, scoring_seconds=12.34, rivals=2)
    show_certificate(found)
    shown = capsys.readouterr().err
    assert "each answer against 2 answers to your prompt, in both orders" in shown
    assert "90 tokens of the target, 12.3 s of scoring" in shown
