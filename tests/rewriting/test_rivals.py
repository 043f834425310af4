"""A judge of pairs as the reward of a draw: what answers are compared with, and what stops it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alignpro_lite import AlignedModel, Budget, DeviceRequest, Request, RhoStar
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.errors import RewardError
from alignpro_lite.loading import plan_models
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.spans import protect
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.scripted_models import PROMPT, FakePrompter, FakeTarget, drawn

TEXTS = ["How do I stay safe online as a child?", "How do I stay safe online at home?"]


class Comparing:
    """Notes every exchange, and calls a function before it scores some of them."""

    names = ("judge",)

    def __init__(self, before=lambda: None):
        self.portions, self.before, self.cancellations = [], before, []

    def stopped_by(self, cancellation):
        self.cancellations.append(cancellation)
        return self

    def score(self, exchanges):
        self.before()
        self.portions.append(list(exchanges))
        return np.array([[float(len(each.answer))] for each in exchanges])

    def close(self):
        pass

    @property
    def read(self):
        return [exchange for portion in self.portions for exchange in portion]


def judged(scorer, target=None, cancellation=None, **settings):
    prompter: Any = FakePrompter(TEXTS)
    fake: Any = target or FakeTarget()
    reward = Reward([scorer], {"judge": 1.0}, rivals=2)
    models = DrawModels(prompter, fake, reward)
    request = Request(rho_star=RhoStar(samples=2, **settings))
    return draw(models, protect(PROMPT), request, cancellation or Cancellation())


def test_every_answer_meets_the_same_rivals_which_nothing_else_is_judged_by():
    """Rivals that are scored too would have a tie with themselves, and every gain its noise."""
    scorer, target = Comparing(), FakeTarget()
    found = judged(scorer, target, guard="strict").certificate
    (rivals,) = {exchange.rivals for exchange in scorer.read}
    assert len(set(rivals)) == 2
    assert all(rival.startswith(f"{PROMPT}#") for rival in rivals)
    assert not set(rivals) & {exchange.answer for exchange in scorer.read}
    assert found.rivals == 2
    assert found.scoring_seconds >= 0
    assert found.target_tokens == 3 * (len(scorer.read) + 2)
    assert target.counted[PROMPT] == 8 + 2


def test_a_reward_of_single_answers_asks_for_no_rivals():
    scorer = Comparing()
    target: Any = FakeTarget()
    found = drawn(
        FakePrompter(TEXTS), Reward([scorer], {"judge": 1.0}), target, samples=2, guard="strict"
    )
    assert {exchange.rivals for exchange in scorer.read} == {()}
    assert found.certificate.rivals == 0
    assert target.counted[PROMPT] == 8


def test_a_budget_pays_for_the_rivals_first():
    answers = 8 + 2 * 2 + 8
    few, enough = (Budget(tokens=96 * (answers + rivals)) for rivals in (1, 2))
    for budget, candidates in ((few, 1), (enough, 2)):
        target = FakeTarget(tokens=96)
        assert judged(Comparing(), target, budget=budget).certificate.drawn == candidates


def test_a_request_that_is_cancelled_waits_for_few_verdicts():
    """A judge reads an answer in seconds: all of them at once would be a minute to wait for."""
    cancellation = Cancellation()
    scorer = Comparing(before=cancellation.cancel)
    assert judged(scorer, cancellation=cancellation).reason == "cancelled"
    assert [len(portion) for portion in scorer.portions] == [4]
    assert scorer.cancellations == [cancellation], "it can stop in the middle of these"


@pytest.fixture
def sure(monkeypatch):
    """The tiny model is untrained: A and B are two of thousands of tokens to it."""
    monkeypatch.setattr("alignpro_lite.reward.judge.LEAST_MASS", 0.0)


SMALL = Request(rho_star=RhoStar(samples=2, strength=0.1, guard_answers=2), max_tokens=4)


@pytest.mark.usefixtures("sure")
def test_the_target_is_its_own_judge_in_the_memory_that_it_has(monkeypatch):
    """A second copy of the weights would be half of a small machine's memory."""
    opened = []

    def noted(*given):
        opened.append(given)
        return plan_models(*given)

    monkeypatch.setattr("alignpro_lite.opening.plan_models", noted)
    monkeypatch.setattr("alignpro_lite.reward.loading.LlamaTarget", None)
    with AlignedModel.load(
        TINY_TARGET, TINY_BUNDLE, "judge:target", devices=DeviceRequest("cpu")
    ) as model:
        assert len(opened) == 1
        first = model.run(PROMPT, SMALL.with_seed(3))
        again = model.run(PROMPT, SMALL.with_seed(3))
    assert first.certificate == again.certificate
    assert first.certificate.rivals == 2
    assert first.certificate.before is not None
    assert 0 <= first.certificate.before.mean <= 1


def test_a_target_that_cannot_judge_is_refused_by_name():
    """Without an error, every prompt would go out unchanged, after minutes of reading."""
    with (
        AlignedModel.load(
            TINY_TARGET, TINY_BUNDLE, "judge:target", devices=DeviceRequest("cpu")
        ) as model,
        pytest.raises(RewardError, match="judge must reply"),
    ):
        model.run(PROMPT, SMALL)
