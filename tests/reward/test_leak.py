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
    ],
)
def test_what_is_in_the_prompt_too_or_is_another_word_is_none(sent, reference):
    assert not leaks(PROMPT, sent, reference)
