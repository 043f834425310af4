"""What a prompter is asked, and how its output becomes a rewrite."""

from __future__ import annotations

import pytest

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.prompter.template import AUGMENT, REWRITE, TEMPLATES


@pytest.mark.parametrize("mode", TEMPLATES)
def test_neutral_templates_show_no_single_form(mode):
    """Every export once inherited the one sentence that one adapter was trained into."""
    template = TEMPLATES[mode]
    outputs = [output for _, output in template.examples if output]
    assert template.mode == mode
    assert len({tuple(output.split()[:3]) for output in outputs}) == len(outputs)
    assert not any("thorough" in output for output in outputs)


def test_examples_show_when_nothing_is_to_be_done():
    assert [output for _, output in AUGMENT.examples].count("") == 2
    assert any(prompt == output for prompt, output in REWRITE.examples)


def test_the_empty_hint_is_the_prompt_to_the_last_space():
    assert AUGMENT.apply("Why? ", " \n") == "Why? "
    assert AUGMENT.apply("Why? ", "Be brief.") == "Why?\n\nBe brief."
    assert REWRITE.apply("Why?", " \n") == ""


def test_a_rewrite_that_differs_in_outer_white_space_alone_is_the_prompt():
    """Holds down: a prompt that ends with a line break counted as rewritten when it was not."""
    assert REWRITE.apply(" Why?\n", "Why?") == " Why?\n"
    assert REWRITE.apply(" Why?\n", "Why\n?") == "Why\n?"


def test_earlier_turns_stand_before_the_request_and_leave_it_as_it_is():
    turns = [Message("user", "Two soups?"), Message("assistant", "Lentil and leek.")]
    plain, told = AUGMENT.messages("The first."), AUGMENT.messages("The first.", turns)
    assert told[:-1] == plain[:-1]
    assert told[-1].content == (
        "Earlier in the conversation:\nUser: Two soups?\nAssistant: Lentil and leek.\n\n"
        + plain[-1].content
    )


def test_only_the_last_turns_are_shown_and_long_ones_without_their_middle():
    turns = [Message("user", f"turn {number} " + "x" * 900 + " end") for number in range(6)]
    shown = AUGMENT.messages("More?", turns)[-1].content
    assert "turn 1" not in shown
    assert all(f"turn {number}" in shown for number in (2, 3, 4, 5))
    assert shown.count(" end") == 4
    assert len(shown) < 2_000
