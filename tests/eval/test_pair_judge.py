"""A judge of pairs: both orders, nonsense, answers that do not fit; a scripted model replies."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from alignpro_lite.errors import ContextOverflowError, InputError, RewardError
from alignpro_lite.eval.pair_judge import ENOUGH, judge_pairs
from alignpro_lite.reward.judge import LEAST_MASS, SHARPNESS, PairJudge, Tie, Verdict

approx: Any = pytest.approx


class Scripted:
    """A chat model that sees two answers and replies as a function of them says.

    The function returns the probabilities of the replies A and B; an answer `huge` has no room.
    """

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    def choice_log_probs(self, conversations, choices, cancellation=None):
        assert choices == ["A", "B"]
        shown = [self._answers(messages) for messages in conversations]
        self.asked += shown
        with np.errstate(divide="ignore"):
            return np.log(np.array([self.reply(first, second) for first, second in shown]))

    def require_choice_room(self, messages, choices):
        if "huge" in self._answers(messages):
            raise ContextOverflowError("Too long.", "Shorten it.")

    def _answers(self, messages):
        (message,) = messages
        first, second = re.findall(r"\[Answer .\]\n(\w+)", message.content)
        return first, second


def likes_long(first, second):
    return (0.9, 0.05) if len(first) > len(second) else (0.05, 0.9)


def likes_the_first_place(first, second):
    return 0.6, 0.3


def rambles(first, second):
    return 0.01, 0.002


def scripted(reply) -> Any:
    """A target as far as a judge needs one."""
    return Scripted(reply)


def judge(reply):
    return PairJudge(scripted(reply), "fake")


def judged(reply, first, second):
    return judge_pairs(judge(reply), ["why"] * len(first), first, second, (), lambda _: None)


def test_a_preference_that_follows_the_answer_counts():
    model = scripted(likes_long)
    found = PairJudge(model).verdict("why", "longer", "short")
    assert found == Verdict(approx(SHARPNESS * np.log(0.9 / 0.05)), approx(0.95), False, None)
    assert found.preference == 1
    assert model.asked == [("longer", "short"), ("short", "longer")]
    assert PairJudge(model).verdict("why", "short", "longer").preference == -1


def test_a_judge_that_prefers_a_place_prefers_no_answer():
    found = judge(likes_the_first_place).verdict("why", "one", "other")
    assert found == Verdict(approx(0, abs=1e-9), approx(0.9), True, None)
    assert found.preference == 0


def test_a_preference_weaker_than_that_for_a_place_counts():
    """Asked for a letter, small judges name the same one both times in most pairs, although the sum
    of both orders is right far more often: such pairs were ties."""

    def reply(first, second):
        return (0.8, 0.1) if first == "one" else (0.7, 0.2)

    found = judge(reply).verdict("why", "one", "other")
    assert (found.preference, found.same_letter) == (1, True)
    assert found.margin == approx(SHARPNESS * (np.log(8) - np.log(3.5)) / 2)


def test_one_reply_of_nonsense_makes_the_verdict_nonsense():
    """A preference asked for in one order only would be the judge's preferred place."""

    def reply(first, second):
        return (0.95, 0.01) if first == "one" else (0.001, 0.3)

    found = judge(reply).verdict("why", "one", "other")
    assert found == Verdict(0, approx(0.301), None, Tie.NONSENSE)


@pytest.mark.parametrize(("mass", "tie"), [(LEAST_MASS + 0.01, None), (0.49, Tie.NONSENSE)])
def test_the_limit_of_nonsense(mass, tie):
    found = judge(lambda first, second: (mass - 0.001, 0.001)).verdict("why", "one", "other")
    assert found.tie is tie


def test_nobody_is_asked_about_equal_answers():
    model = scripted(likes_the_first_place)
    equal = Verdict(0, None, None, Tie.EQUAL)
    assert PairJudge(model).verdict("why", "same", " same\n") == equal
    assert not model.asked


def test_answers_that_do_not_fit_are_a_tie_named_as_such():
    found = judge(likes_long).verdict("why", "huge", "other")
    assert found == Verdict(0, None, None, Tie.TOO_LONG)


def test_whole_arms_by_hand():
    """Won, lost, equal, too long, nonsense, a place preferred, won."""

    def reply(first, second):
        known = {"odd": rambles, "meh": likes_the_first_place}
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
    assert found.ties == {Tie.EQUAL: 1, Tie.TOO_LONG: 1, Tie.NONSENSE: 1}
    assert found.same_letter == 1
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
            PairJudge(model, "fake"),
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
        PairJudge(model, "fake"), ["why"] * 4, first, second, heard[:2], rest.append
    )
    assert (found, rest) == (whole, heard[2:])
    assert model.asked == [("ccc", "cc"), ("cc", "ccc")]


def test_a_judge_known_to_reply_nonsense_is_not_asked_again():
    model = scripted(rambles)
    known = [Verdict(0, 0.01, None, Tie.NONSENSE)] * ENOUGH
    with pytest.raises(RewardError, match="fake"):
        judge_pairs(
            PairJudge(model, "fake"),
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
        judged(likes_long, ["huge", "huge"], ["c", "d"])
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

    assert judge(reply).verdict("why", "one", "other").preference == 1
