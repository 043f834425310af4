"""Repetition by segment, by hand-counted answers."""

from __future__ import annotations

import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.segments import SEGMENT_WORDS, describe_segments


def words(first, count):
    return " ".join(f"w{number}" for number in range(first, first + count))


def test_an_answer_that_never_repeats_itself():
    found = describe_segments([words(0, 2 * SEGMENT_WORDS)], [False])
    assert found.reached == (1, 1, 0, 0)
    assert found.repeated == (0, 0, None, None)
    assert found.cut == 0


def test_a_loop_begins_where_it_begins():
    """The second segment says the first one again: of its runs, the 3 that reach back are new."""
    again = f"{words(0, SEGMENT_WORDS)} {words(0, SEGMENT_WORDS)}"
    found = describe_segments([again], [True])
    assert found.repeated[0] == 0
    assert found.repeated[1] == pytest.approx((SEGMENT_WORDS - 3) / SEGMENT_WORDS)
    assert found.cut == 1


def test_runs_of_all_answers_count_alike():
    loop = " ".join(["a b"] * 6)  # 9 runs of 4 words, 2 of them new
    found = describe_segments([loop, words(0, 12), ""], [False, False, True])
    assert found.repeated[0] == pytest.approx(7 / 18)
    assert found.reached[0] == pytest.approx(2 / 3)
    assert found.cut == pytest.approx(1 / 3)


def test_the_last_segment_goes_to_the_end():
    found = describe_segments([words(0, 3 * SEGMENT_WORDS) + " x" * 200], [False])
    assert found.reached == (1, 1, 1, 1)
    assert found.repeated[3] == pytest.approx(196 / 200)


@pytest.mark.parametrize(("answers", "cut"), [([], []), (["a"], [])])
def test_every_answer_is_cut_or_not(answers, cut):
    with pytest.raises(InputError, match="Expected at least one answer"):
        describe_segments(answers, cut)
