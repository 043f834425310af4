"""What a reward does not see, on texts whose numbers are known."""

from __future__ import annotations

from dataclasses import astuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.errors import InputError
from alignpro_lite.measure import text

PROMPT = "Explain `sort(xs)` for 3 lists of 1,000 items, without recursion."


def test_words_leave_out_punctuation_and_case():
    assert text.split_words("Don\u2019t stop -- it's 3.5!") == [
        "don\u2019t",
        "stop",
        "it's",
        "3",
        "5",
    ]
    assert text.split_words("") == []


def test_each_ideograph_is_a_word():
    assert text.split_words("GPTとは何") == ["gpt", "と", "は", "何"]


def test_similarity_by_hand():
    """`a c d` are in order in both: 2 x 3 of 4 + 5 words."""
    assert text.word_similarity("a b c d", "A x c d y") == pytest.approx(6 / 9)
    assert text.word_similarity("one two", "three") == 0
    assert text.word_similarity("", "  ") == 1


def test_what_a_rewrite_keeps():
    rewrite = "Please explain how sort(xs) works on 3 lists with 1000 entries."
    found = text.kept_shares(PROMPT, rewrite)
    # explain, sort, xs, lists stay; items, without, recursion are lost.
    assert found.words == pytest.approx(4 / 7)
    assert found.numbers == pytest.approx(1 / 2)
    assert found.code == 1
    assert text.kept_shares(PROMPT, "Explain sorting.").code == 0


def test_a_fenced_block_is_one_code_span():
    prompt = "Fix this:\n```python\nx = `1`\ny = 2\n```\nand `z`"
    assert text.kept_shares(prompt, "Correct\nx = `1`\ny = 2\nplease").code == 0.5


def test_nothing_to_keep_is_not_everything_kept():
    assert text.kept_shares("what is it?", "no") == text.KeptShares(None, None, None)


def test_white_space_alone_is_no_change():
    assert text.is_unchanged("a  b\n", " a b")
    assert not text.is_unchanged("a b", "A b")


def test_distinct_share_by_hand():
    assert text.distinct_share(["Be brief.", "be brief", "Be kind."]) == pytest.approx(2 / 3)


def test_repeated_share_by_hand():
    """Six words have three runs of four; looped, the text has nine runs and six different."""
    assert text.repeated_share("a b c d e f") == 0
    assert text.repeated_share("a b c d e f a b c d e f") == pytest.approx(1 - 6 / 9)
    assert text.repeated_share("no " * 100) == pytest.approx(1 - 1 / 97)
    assert text.repeated_share("too short") == 0


def test_a_set_of_rewrites_by_hand():
    found = text.describe_rewrites(["Add 2 and 2", "Say hi"], ["Add 2 and 2", "Say hello kindly"])
    assert found.words == 3.5
    assert found.growth == pytest.approx(7 / 6)
    assert found.characters == (11 + 16) / 2
    assert found.similarity == pytest.approx((1 + 2 / 5) / 2)
    assert astuple(found.kept) == (pytest.approx((1 + 1 / 2) / 2), 1.0, None)
    assert (found.unchanged, found.distinct_additions, found.repeated) == (0.5, 1.0, 0.0)


def test_one_hint_for_every_prompt_shows_in_its_additions():
    found = text.describe_rewrites(["Say hi", "Add 2"], ["Say hi Be brief.", "Add 2\nBe brief."])
    assert found.distinct_additions == 0.5


def test_a_set_of_answers_by_hand():
    found = text.describe_answers(["Yes, it is.", " "])
    assert found == text.AnswerText(words=1.5, characters=6.0, empty=0.5, repeated=0.0)


@settings(deadline=None)
@given(st.text(), st.text())
def test_every_share_of_any_two_texts_is_a_share(prompt, rewrite):
    found = text.describe_rewrites([prompt], [rewrite])
    shares = [found.similarity, found.unchanged, found.distinct_additions, found.repeated]
    shares += [share for share in vars(found.kept).values() if share is not None]
    assert all(0 <= share <= 1 for share in shares)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_a_prompt_keeps_everything_of_itself(prompt):
    found = text.describe_rewrites([prompt], [prompt])
    assert (found.similarity, found.unchanged) == (1, 1)
    assert {share for share in vars(found.kept).values() if share is not None} <= {1.0}


def test_empty_sets_and_uneven_ones_are_refused():
    for call in (
        lambda: text.describe_rewrites([], []),
        lambda: text.describe_rewrites(["a"], []),
        lambda: text.describe_answers([]),
        lambda: text.distinct_share([]),
    ):
        with pytest.raises(InputError):
            call()
