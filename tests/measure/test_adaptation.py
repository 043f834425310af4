"""How rewrites depend on their prompts: shares, and mutual information against closed forms."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.adaptation import (
    Information,
    added_words,
    describe_adaptation,
    mutual_information,
)


@pytest.mark.parametrize(
    ("rewrite", "added"),
    [
        ("Why is it cold?", ()),
        (" Why is it cold?\n", ()),
        ("Why is it cold?\n\nBe brief.", ("be", "brief")),
        ("Be brief.\n\nWhy is it cold?", ("be", "brief")),
        ("Why is it cold?\nAgain: Why is it cold?", ("again",)),
        ("What makes it cold?", ("what", "makes", "it", "cold")),
    ],
)
def test_what_a_rewrite_adds(rewrite, added):
    assert added_words("Why is it cold?", rewrite) == added


def test_labels_that_are_one_another_share_their_entropy():
    found = mutual_information(list("aabb"), list("xxyy"), 0)
    assert (found.plain, found.most) == pytest.approx((1.0, 1.0))
    # Of 6 deals of two and two, 2 keep the pairs together, and the others share nothing.
    assert found.by_chance == pytest.approx(2 / 6)


def test_independent_labels_share_nothing():
    found = mutual_information(list("aabb"), list("xyxy"), 0)
    assert found.plain == pytest.approx(0)
    assert found.corrected == pytest.approx(-2 / 6)
    assert found.p == 1


@pytest.mark.parametrize(
    ("first", "second"), [("aabbc", "xxyyy"), ("abcde", "xxyyz"), ("aaab", "xyxy")]
)
def test_what_chance_shows_is_the_mean_over_all_deals(first, second):
    deals = [mutual_information(first, deal, 0).plain for deal in set(permutations(second))]
    assert mutual_information(first, second, 0).by_chance == pytest.approx(float(np.mean(deals)))


def test_labels_of_one_thing_each_say_nothing():
    """Holds down: 600 different rewrites share all of the entropy of any kinds, by counting."""
    kinds = ["a", "b", "c"] * 20
    found = mutual_information(range(60), kinds, 0)
    assert found.plain == pytest.approx(found.most) == pytest.approx(np.log2(3))
    assert found.corrected == pytest.approx(0)
    assert found.p == 1


def test_what_follows_the_kind_is_far_from_chance():
    kinds = ["a", "b"] * 20
    found = mutual_information([kind if n % 10 else "?" for n, kind in enumerate(kinds)], kinds, 0)
    assert found.corrected > 0.7
    assert found.p == 0.001


def test_the_figures_of_rewrites():
    prompts = ["One?", "Two?", "Three?", "Four?"]
    hints = ["", "List it.", "List it!", "List them all."]
    rewrites = [
        f"{prompt}\n\n{hint}" if hint else prompt
        for prompt, hint in zip(prompts, hints, strict=True)
    ]
    found = describe_adaptation(prompts, rewrites, ["a", "b", "b", "b"], 0)
    assert (found.prompts, found.unchanged, found.own, found.distinct) == (4, 0.25, 0.25, 2)
    assert found.opening.plain == pytest.approx(found.opening.most), "nothing for a, List for b"


def test_one_hint_for_all_says_nothing_about_the_kind():
    prompts = [f"Question {number}?" for number in range(6)]
    found = describe_adaptation(prompts, [f"{p}\n\nBe brief." for p in prompts], list("ababab"), 0)
    assert (found.own, found.distinct) == (0, 1)
    assert found.whole == Information(0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("rewrites", [[], ["a", "b"]])
def test_every_prompt_needs_one_rewrite(rewrites):
    with pytest.raises(InputError, match="found 1, "):
        describe_adaptation(["a"], rewrites, ["k"], 0)
    with pytest.raises(InputError, match="found 0 and 0"):
        mutual_information([], [], 0)
