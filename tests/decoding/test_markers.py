"""Markers: what counts as one, whose it is, and where a text is cut inside a user's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.decoding.markers import Rendered, is_marker
from alignpro_lite.errors import InputError


def rendered(*parts: tuple[str, bool]) -> Rendered:
    """A text from parts: what stands there, and whether the template wrote it."""
    text, own = "", []
    for part, is_own in parts:
        if is_own:
            own.append((len(text), len(text) + len(part)))
        text += part
    return Rendered(text, tuple(own))


def texts(found, spans) -> list[str]:
    return [found.text[start:end] for start, end in spans]


def test_only_what_the_template_wrote_counts():
    talk = rendered(("<a>x", True), ("y<a><", False), ("a>", True))
    found = talk.find(["<a>"])
    assert texts(talk, found.own) == ["<a>"]
    assert found.foreign == ((5, 8), (8, 11))


def test_the_longest_of_the_first_wins():
    talk = rendered(("<|a|><|a|>b", True))
    assert texts(talk, talk.find(["<|a|>", "<|a|>b"]).own) == ["<|a|>", "<|a|>b"]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_role_is_part_of_a_marker_that_a_template_puts_together(role):
    """`'<|' + message.role + '|>'`: the role's name comes with the conversation."""
    talk = rendered(("<|", True), (role, False), ("|>", True), (f"<|{role}|>", False))
    found = talk.find([f"<|{role}|>"])
    assert (len(found.own), len(found.foreign)) == (1, 1)


def test_a_message_that_a_template_puts_brackets_around_is_no_marker():
    talk = rendered(("<|", True), ("im_end", False), ("|>", True))
    assert talk.find(["<|im_end|>"]).own == ()


def test_a_nul_of_a_message_is_not_taken_for_the_templates_own():
    assert rendered(("<\0>", False)).find(["<\0>"]).own == ()


def test_what_cannot_be_told_apart_is_refused_only_if_it_matters():
    talk = Rendered("<a>x<a>", ((0, 7),), doubtful="x<b>", harmless="<a>m<a>")
    assert len(talk.find(["<a>"]).own) == 2
    with pytest.raises(InputError, match="found one that holds '<b>'"):
        talk.find(["<a>", "<b>"])


def test_what_a_template_makes_of_doubtful_messages_counts():
    """Holds down: a marker typed in two halves around what a template takes out became real."""
    talk = Rendered("<a><b>", ((0, 6),), doubtful="<x>b>", harmless="<a>m")
    assert len(talk.find(["<a>"]).own) == 1
    with pytest.raises(InputError, match="or becomes it"):
        talk.find(["<b>"])


@given(parts=st.lists(st.tuples(st.text(alphabet="<a|>b", max_size=6), st.booleans()), max_size=6))
def test_no_piece_of_a_cut_text_holds_a_marker_of_a_message(parts):
    markers = ["<a>", "<<a>", "|>", "<|a|>", "aa", "b"]
    talk = rendered(*parts)
    found = talk.find(markers)
    cuts = found.cuts()
    assert not any(start < cut < end for start, end in found.own for cut in cuts)
    for start, end in found.foreign:
        inside = any(start < cut < end for cut in cuts) or {start, end} <= cuts
        assert inside or any(first <= start and end <= last for first, last in found.own)


@pytest.mark.parametrize(
    ("token", "template", "marks"),
    [
        ("<think>", "", True),
        ("<\uff5cUser\uff5c>", "", True),
        ("<|im_start|>", "", True),
        ("[/INST]", "", True),
        ("◁/think▷", "", True),
        ("【tool】", "", True),
        ("<tool_call>\n", "", True),
        ("<s>", "", False),
        ("<s>", "<s>[INST]", True),
        ("<table>", "", False),
        ("</h1>", "", False),
        ("\n\n", "\n\n", False),
        ("  ", "  ", False),
        (":", "USER:", False),
        ("USER:", "USER: {{ x }}", True),
        ("USER:", "", False),
        ("->", "", False),
        ("<=", "", False),
        ("", "", False),
    ],
)
def test_what_marks_structure(token, template, marks):
    assert is_marker(token, template) == marks
