"""Which rewrites give the answer away."""

from __future__ import annotations

import pytest

from alignpro_lite.reward.leak import leaks

PROMPT = "Tom has 3 bags of 600 nuts. How many nuts has he?"


@pytest.mark.parametrize(
    ("sent", "reference"),
    [
        (f"{PROMPT} The answer is 1800.", "3 * 600 = 1800\n#### 1,800"),
        (f"{PROMPT} It is 1,800, so say that.", "#### 1800"),
        ("What is the capital of France? Say  paris!", "Paris"),
        ("Who wrote it? Name Jane\nAusten.", "Jane Austen."),
        # Regression: numbers were compared letter by letter.
        (f"{PROMPT} The answer is 1800.00.", "#### 1800"),
        (f"{PROMPT} It is 1 800.", "#### 1800"),
        (f"{PROMPT} He has 1800nuts.", "#### $1800"),
    ],
)
def test_an_answer_that_only_the_rewrite_has_is_a_leak(sent, reference):
    assert leaks(PROMPT, sent, reference)


@pytest.mark.parametrize(
    ("sent", "reference"),
    [
        (PROMPT, "#### 1800"),
        (f"{PROMPT} Work in steps.", "#### 1800"),
        (f"{PROMPT} Check 18000 and 1800.5 too.", "#### 1800"),
        (f"{PROMPT} Mind the 3 bags.", "#### 3"),
        (f"{PROMPT} Name the Parisian.", "Paris"),
        (f"{PROMPT} Anything.", ""),
        (f"{PROMPT} Mind H2O, v1800 and the 1800th nut.", "#### 1800"),
        (f"{PROMPT} Mind 1 8000.", "#### 18000"),
    ],
)
def test_what_is_in_the_prompt_too_or_is_another_word_is_none(sent, reference):
    assert not leaks(PROMPT, sent, reference)


CHOICE = "Tom has 3 bags of 600 nuts. Has Ann or Tom more than 3 bags = 1800 nuts? Explain it."


@pytest.mark.parametrize(
    ("told", "reference"),
    [
        ("The answer is 3.", "#### 3"),
        ("The final answer to this question is **3**", "#### 3"),
        ("Answer: $3.00", "#### 3"),
        ("#### 3", "5 - 2 = 3\n#### 3"),
        ("Work in steps. 5 - 2 = 3.", "#### 3"),
        ("Work in steps\n5 - 2 = 3", "#### 3"),
        ("The answer is -3.", "#### -3"),
        ("The answer is: Tom.", "Tom"),
        ("The answer is “Tom”\nThen explain it.", "Tom"),
    ],
)
def test_an_answer_that_is_told_is_a_leak_even_if_the_prompt_holds_it(told, reference):
    """Regression: 39 of 658 GSM8K prompts hold the number that answers them."""
    assert leaks(CHOICE, f"{CHOICE}\n\n{told}", reference)
    assert not leaks(f"{CHOICE}\n\n{told}", f"{CHOICE}\n\n{told}", reference)


@pytest.mark.parametrize(
    ("sent", "reference"),
    [
        (f"{CHOICE}\n\nMind the 3 bags and Tom.", "#### 3"),
        (f"{CHOICE}\n\nThe answer is a 3-digit number.", "#### 3"),
        (f"{CHOICE}\n\nThe answer is Tom or Ann.", "Tom"),
        (f"{CHOICE}\n\nSay why 1 + 2 = 3. Then answer.", "#### 3"),
        (f"Work in steps.\n\n{CHOICE}", "#### 1800"),
    ],
)
def test_what_only_speaks_of_the_answer_does_not_tell_it(sent, reference):
    assert not leaks(CHOICE, sent, reference)
