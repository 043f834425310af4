"""A judge of pairs: both orders, nonsense, answers that do not fit; a scripted model replies."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from alignpro_lite.errors import ContextOverflowError, InputError, RewardError
from alignpro_lite.eval.pair_judge import ENOUGH, judge_pairs
from alignpro_lite.reward.judge import LEAST_MASS, JudgeScorer, Tie, Verdict

approx: Any = pytest.approx


class Scripted:
    """A chat model that sees two answers and replies as a function of them says.

    The function returns the probabilities of the replies A and B.
    """

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    def choice_log_probs(self, messages, choices):
        assert choices == ["A", "B"]
        (message,) = messages
        first, second = re.findall(r"\[Answer .\]\n(\w+)", message.content)
        self.asked.append((first, second))
        return np.log(np.array(self.reply(first, second)))


def likes_long(first, second):
    return (0.9, 0.05) if len(first) > len(second) else (0.05, 0.9)


def likes_the_first_place(first, second):
    return 0.6, 0.3


def rambles(first, second):
    return 0.01, 0.002


def overflows(first, second):
    raise ContextOverflowError("Too long.", "Shorten it.")


def scripted(reply) -> Any:
    """A target as far as a judge needs one."""
    return Scripted(reply)


def judge(reply):
    return JudgeScorer(scripted(reply), "fake")


def judged(reply, first, second):
    return judge_pairs(judge(reply), ["why"] * len(first), first, second, (), lambda _: None)


def test_a_preference_that_follows_the_answer_counts():
    model = scripted(likes_long)
    found = JudgeScorer(model).verdict("why", "longer", "short")
    assert found == Verdict(1, approx(0.95), None)
    assert model.asked == [("longer", "short"), ("short", "longer")]
    assert JudgeScorer(model).verdict("why", "short", "longer").preference == -1


def test_a_judge_that_prefers_a_place_ties():
    found = judge(likes_the_first_place).verdict("why", "one", "other")
    assert found == Verdict(0, approx(0.9), Tie.POSITION)
    assert not found.nonsense


def test_a_judge_that_cannot_decide_ties():
    found = judge(lambda first, second: (0.5, 0.5)).verdict("why", "one", "other")
    assert (found.preference, found.tie) == (0, Tie.POSITION)


def test_one_reply_of_nonsense_makes_the_verdict_nonsense():
    """A preference asked for in one order only would be the judge's preferred place."""

    def reply(first, second):
        return (0.95, 0.01) if first == "one" else (0.001, 0.3)

    found = judge(reply).verdict("why", "one", "other")
    assert found == Verdict(0, approx(0.301), Tie.NONSENSE)
    assert found.nonsense


@pytest.mark.parametrize(("mass", "nonsense"), [(LEAST_MASS + 0.01, False), (0.49, True)])
def test_the_limit_of_nonsense(mass, nonsense):
    found = judge(lambda first, second: (mass - 0.001, 0.001)).verdict("why", "one", "other")
    assert found.nonsense is nonsense


def test_nobody_is_asked_about_equal_answers():
    model = scripted(likes_the_first_place)
    assert JudgeScorer(model).verdict("why", "same", "same") == Verdict(0, None, Tie.EQUAL)
    assert not model.asked


def test_answers_that_do_not_fit_are_a_tie_named_as_such():
    assert judge(overflows).verdict("why", "one", "other") == Verdict(0, None, Tie.TOO_LONG)


def test_whole_arms_by_hand():
    """Won, lost, equal, too long, nonsense, a place preferred, won."""

    def reply(first, second):
        known = {"huge": overflows, "odd": rambles, "meh": likes_the_first_place}
        return known.get(min(first, second), likes_long)(first, second)

    first = ["xxx", "x", "same", "huge", "odd", "meh", "zzz"]
    second = ["xx", "xx", "same", "y", "y", "y", "zz"]
    heard = []
    found = judge_pairs(judge(reply), ["why"] * 7, first, second, (), heard.append)
    assert found.preferences == (1, -1, 0, 0, 0, 0, 1)
    assert (found.win.value, found.tie.value, found.loss.value) == pytest.approx(
        (2 / 7, 4 / 7, 1 / 7)
    )
    assert found.win.low < 2 / 7 < found.win.high
    assert found.ties == dict.fromkeys(Tie, 1)
    assert [verdict.preference for verdict in heard] == list(found.preferences)


def test_swapping_the_arms_swaps_win_and_loss():
    first, second = ["a", "bb", "ccc", "dd"], ["aa", "b", "cc", "dd"]
    there, back = judged(likes_long, first, second), judged(likes_long, second, first)
    assert (there.win, there.tie, there.loss) == (back.loss, back.tie, back.win)


def test_a_judge_of_nonsense_is_stopped_and_named():
    model, count = scripted(rambles), 3 * ENOUGH
    says = rf"fake .* on {ENOUGH} of {ENOUGH} pairs .* 0\.012"
    with pytest.raises(RewardError, match=says) as caught:
        judge_pairs(
            JudgeScorer(model, "fake"),
            ["why"] * count,
            ["a"] * count,
            ["b"] * count,
            (),
            lambda _: None,
        )
    assert "instruction-tuned" in caught.value.cure
    assert len(model.asked) == 2 * ENOUGH


def test_verdicts_that_are_known_are_not_asked_for_again():
    """A stopped comparison asked about every pair of a system anew."""
    first, second = ["a", "bb", "ccc", "dd"], ["aa", "b", "cc", "dd"]
    whole, heard = judged(likes_long, first, second), []
    judge_pairs(judge(likes_long), ["why"] * 4, first, second, (), heard.append)
    model, rest = scripted(likes_long), []
    found = judge_pairs(
        JudgeScorer(model, "fake"), ["why"] * 4, first, second, heard[:2], rest.append
    )
    assert (found, rest) == (whole, heard[2:])
    assert model.asked == [("ccc", "cc"), ("cc", "ccc")]


def test_a_judge_known_to_reply_nonsense_is_not_asked_again():
    model = scripted(rambles)
    known = [Verdict(0, 0.01, Tie.NONSENSE)] * ENOUGH
    with pytest.raises(RewardError, match="fake"):
        judge_pairs(
            JudgeScorer(model, "fake"),
            ["why"] * 30,
            ["a"] * 30,
            ["b"] * 30,
            known,
            lambda _: None,
        )
    assert not model.asked


def test_more_than_half_nonsense_is_refused_and_half_is_not():
    """Pairs that nobody was asked about count for neither side."""

    def reply(first, second):
        return (rambles if "odd" in (first, second) else likes_long)(first, second)

    half = judged(reply, ["odd", "xx", "same", "same"], ["y", "x", "same", "same"])
    assert half.ties[Tie.NONSENSE] == 1
    with pytest.raises(RewardError, match="2 of 3 pairs"):
        judged(reply, ["odd", "odd", "xx", "same", "same"], ["y", "y", "x", "same", "same"])


def test_a_context_that_holds_no_pair_is_refused():
    with pytest.raises(RewardError, match="any of 2 pairs") as caught:
        judged(overflows, ["a", "b"], ["c", "d"])
    assert "context" in caught.value.cure


@pytest.mark.parametrize(
    ("prompts", "first", "second"),
    [([], [], []), (["why"], ["a", "b"], ["c"]), (["why", "how"], ["a", "b"], ["c"])],
)
def test_arms_that_do_not_fit_are_refused(prompts, first, second):
    with pytest.raises(InputError, match=f"found {len(first)} and {len(second)} to"):
        judge_pairs(judge(likes_long), prompts, first, second, (), lambda _: None)


def test_a_probability_of_zero_is_no_error():
    def reply(first, second):
        return (1.0, 0.0) if first == "one" else (0.0, 1.0)

    with np.errstate(divide="ignore"):
        assert judge(reply).verdict("why", "one", "other").preference == 1
