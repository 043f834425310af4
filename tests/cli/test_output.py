"""What commands print about a rewrite."""

from __future__ import annotations

import re
import time

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.cli.output import marked
from alignpro_lite.rewriting.certificate import word_changes


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
