"""Rewards: named parts, weights, user functions, judges; failures of one item stay that item's."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from alignpro_lite.errors import AlignProError, InputError, RewardError
from alignpro_lite.registry import ModelStore
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.loading import ScorerSource, open_reward, scorer_named
from alignpro_lite.reward.reward import CallableScorer, Reward, score_warnings
from tests.support import TINY_TARGET

TALK = [Exchange("What is blue?", "The sky."), Exchange("Why?", "Why not?")]


class Fixed:
    """A scorer of given numbers that remembers being closed."""

    def __init__(self, names, table):
        self.names, self.table, self.closed = names, np.asarray(table, float), False

    def score(self, exchanges):
        return self.table

    def close(self):
        self.closed = True


def test_the_total_is_the_weighted_sum_and_parts_stay_unweighted():
    fixed = Fixed(("a", "b"), [[1, 2], [3, 4]])
    length = CallableScorer("tests.support.reward_functions:length", "n")
    with Reward([fixed, length], {"a": 1.0, "b": -0.5, "n": 0.1}) as reward:
        scores = reward.score(TALK)
    np.testing.assert_allclose(scores.total, [1 - 1 + 0.8, 3 - 2 + 0.8])
    assert list(scores.parts["b"]) == [2, 4]
    assert list(scores.parts["n"]) == [8, 8]
    assert fixed.closed


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_item_without_a_score_is_nan_and_told_apart(bad):
    scores = Reward([Fixed(("a",), [[bad], [1]])], {"a": 2.0}).score(TALK)
    assert list(scores.failed) == [True, False]
    assert math.isnan(scores.parts["a"][0])
    assert scores.total[1] == 2
    assert score_warnings(scores) == ["1 of 2 scores of 'a' are not numbers."]


def test_a_constant_part_is_warned_about_and_a_varied_one_is_not():
    table = [[1, 0.5], [2, 0.5], [3, math.nan]]
    scores = Reward([Fixed(("a", "b"), table)], {"a": 1, "b": 1}).score([*TALK, TALK[0]])
    assert score_warnings(scores) == [
        "1 of 3 scores of 'b' are not numbers.",
        "All 2 scores of 'b' are 0.5.",
    ]


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        ([("a",), ("a",)], {"a": 1}, "'a' comes from two scorers"),
        ([("a", "b")], {"a": 1}, "'b' has no weight"),
        ([("a",)], {"a": 1, "c": 1}, "weight for 'c'"),
        ([("a",)], {"a": math.inf}, "'a' must be a finite number"),
        ([], {}, "at least one part"),
    ],
)
def test_names_and_weights_have_to_match(names, weights, message):
    with pytest.raises(InputError, match=message):
        Reward([Fixed(each, np.zeros((2, len(each)))) for each in names], weights)


@pytest.mark.parametrize("table", [[1, 2], [[1]], [[1, 2], [3, 4]]])
def test_a_scorer_of_the_wrong_shape_is_named(table):
    with pytest.raises(RewardError, match=r"scorer of part must return scores of shape \(2, 1\)"):
        Reward([Fixed(("part",), table)], {"part": 1}).score(TALK)


@pytest.mark.parametrize("name", ["raising", "too_short", "texts", "ragged", "nothing"])
def test_a_function_that_fails_or_returns_no_numbers_is_named(name):
    with pytest.raises(RewardError, match=f"tests.support.reward_functions:{name}") as caught:
        CallableScorer(f"tests.support.reward_functions:{name}", "part").score(TALK)
    assert caught.value.cure


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "reward_functions",
            "tests.support.reward_functions:",
            ":length",
            "",
            "no_such_module_here:f",
        ),
        *(
            "tests.support.reward_functions:absent",
            "tests.support.reward_functions:NOT_A_FUNCTION",
            "..:x",
        ),
    ],
)
def test_what_is_no_function_is_refused_before_anything_is_scored(reference):
    with pytest.raises(InputError):
        CallableScorer(reference, "part")


def test_a_function_may_leave_single_items_undecided():
    scores = CallableScorer("tests.support.reward_functions:undecided", "part").score(TALK)
    np.testing.assert_array_equal(scores, [[1], [math.nan]])


@pytest.mark.parametrize("source", ["no-such-reward", "tests.support.reward_functions:absent"])
def test_what_was_loaded_before_another_scorer_failed_is_closed(monkeypatch, source):
    closed = []
    monkeypatch.setattr(CallableScorer, "close", lambda scorer: closed.append(scorer.names))
    good = scorer_named("tests.support.reward_functions:length")
    with pytest.raises(AlignProError):
        open_reward([good, scorer_named(source)], ModelStore.open(), threads=1)
    assert closed == [("reward",)]


def test_a_name_stands_for_a_function_or_a_bundle(tmp_path):
    with open_reward(
        [scorer_named("tests.support.reward_functions:length")], ModelStore.open(), threads=1
    ) as reward:
        assert reward.weights == {"reward": 1.0}
    assert scorer_named("default").kind == scorer_named(tmp_path).kind == "onnx"


def test_a_name_stands_for_a_judge():
    own, other = scorer_named("judge:target"), scorer_named("judge:C:/models/chat.gguf")
    assert (own.kind, own.source, own.is_target) == ("judge", "target", True)
    assert (other.kind, other.source, other.is_target) == ("judge", "C:/models/chat.gguf", False)
    with pytest.raises(InputError, match="judge:target"):
        scorer_named("judge:")


def test_a_target_that_is_no_file_cannot_judge():
    with pytest.raises(InputError, match="weights are loaded here") as caught:
        open_reward([scorer_named("judge:target")], ModelStore.open(), threads=1)
    assert "judge:model.gguf" in caught.value.cure


@pytest.mark.parametrize("kind", ["judge", "python"])
def test_a_judge_and_a_function_have_one_part_each(kind):
    two = ScorerSource(kind, str(TINY_TARGET), {"a": 1.0, "b": 1.0})
    with pytest.raises(InputError, match="has one part, found 2 weights"):
        open_reward([two], ModelStore.open(), threads=1)


def test_rewards_and_bundles_import_no_engine():
    code = (
        "import sys, alignpro_lite.reward.reward, alignpro_lite.reward.bundle; "
        "import alignpro_lite.reward.onnx_reward, alignpro_lite.reward.loading; "
        "assert not {'torch', 'onnxruntime', 'llama_cpp'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
