"""Rollouts: who of a pool answers what, and which rewrites are not tried."""

from __future__ import annotations

from collections import Counter
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.reward.exchange import TaskReference
from alignpro_lite.reward.reward import Reward
from alignpro_lite.reward.rivals import rival_source
from alignpro_lite.target.rollout import Answer, AnswerPlan
from alignpro_lite.train.objective import log_variance
from alignpro_lite.train.rollout import Learner, draw_rivals, roll_out

PROMPTS = [f"Prompt {number}" for number in range(6)]


class Policy:
    """Writes hints 0, 1, 2 after each prompt."""

    tokens = SimpleNamespace(
        template=SimpleNamespace(apply=lambda prompt, output: f"{prompt}|{output}"),
        decode=lambda output: str(output[0]),
    )

    def sample(self, prompts, count, sampling):
        return [[(number,) for number in range(count)] for _ in prompts]

    def pack(self, prompts, outputs):
        return outputs

    def reference_log_probs(self, packed, temperature):
        return np.zeros(len(packed))


class LevelTarget:
    """Answers with its own level, and keeps what it was asked and by which seed."""

    def __init__(self, level):
        self.level = level
        self.asked = []
        self.seeds = []

    def answers(self, conversations, plan, seeds):
        texts = [messages[-1].content for messages in conversations]
        self.asked += texts
        self.seeds.append(list(seeds))
        return [
            [Answer(f"{self.level + int(text.split('|')[1])}", 1, "stop")] * plan.count
            for text in texts
        ]

    def close(self):
        pass


class NumberScorer:
    names = ("r",)

    def score(self, exchanges):
        return np.array([[float(exchange.answer)] for exchange in exchanges])

    def close(self):
        pass


def rolled(targets, seed=7, references=MappingProxyType({})):
    policy: Any = Policy()
    accelerator: Any = None
    reward = Reward([NumberScorer()], {"r": 1.0})
    learner = Learner(
        policy,
        tuple(targets),
        reward,
        AnswerPlan(),
        Sampling(),
        PROMPTS,
        accelerator,
        references=references,
    )
    return roll_out(learner, PROMPTS, 3, seed)


def test_prompts_go_to_the_targets_in_turn_with_all_their_rewrites():
    targets = [LevelTarget(0), LevelTarget(100)]
    rolled(targets)
    by_target = [Counter(text.split("|")[0] for text in target.asked) for target in targets]
    assert [sorted(counted) for counted in by_target] == [PROMPTS[1::2], PROMPTS[::2]]
    assert all(count == 3 for counted in by_target for count in counted.values())
    assert targets[0].seeds != targets[1].seeds


def test_which_target_comes_first_depends_on_the_seed():
    firsts = set()
    for seed in range(4):
        targets = [LevelTarget(0), LevelTarget(100)]
        rolled(targets, seed)
        firsts.add(targets[0].asked[0])
    assert firsts == {f"{PROMPTS[0]}|0", f"{PROMPTS[1]}|0"}


@pytest.mark.parametrize("levels", [[0], [0, 100], [0, 100, 1000]])
def test_the_level_of_a_target_makes_no_difference_between_rewrites(levels):
    """One loss for all: within a group, only what differs between rewrites counts."""
    groups = rolled([LevelTarget(level) for level in levels]).groups
    assert [group.prompt for group in groups] == PROMPTS
    flat = torch.zeros(1, 3)
    losses = {
        float(log_variance(flat, flat, torch.tensor([group.rewards]), 1.0).loss) for group in groups
    }
    assert losses == {0.5}


def test_the_optimum_of_a_pool_is_that_of_its_mean_reward():
    """The mean of the losses of two targets is the loss of their mean, and a constant."""
    first, second = torch.randn(2, 1, 5, generator=torch.Generator().manual_seed(0))
    flat = torch.zeros(1, 5)
    found = []
    for seed in range(3):
        policy = torch.randn(1, 5, generator=torch.Generator().manual_seed(seed))
        pool = [log_variance(policy, flat, rewards, 0.3).loss for rewards in (first, second)]
        mean = log_variance(policy, flat, (first + second) / 2, 0.3).loss
        found.append(float(sum(pool) / 2 - mean))
    assert found == pytest.approx([found[0]] * 3, abs=1e-6)


def known(answer):
    return TaskReference("gsm8k", answer)


def test_a_rewrite_that_gives_the_answer_away_is_not_tried():
    target = LevelTarget(0)
    found = rolled(
        [target], references={PROMPTS[0]: known("6 - 4 = 2\n#### 2"), PROMPTS[1]: known("#### 1")}
    )
    assert (found.leaked, found.empty, found.calls) == (1, 0, 17)
    assert f"{PROMPTS[0]}|2" not in target.asked
    assert [len(group.outputs) for group in found.groups] == [2, 3, 3, 3, 3, 3]


def test_the_rivals_of_several_steps_are_drawn_in_one_call():
    """Step by step, a few rivals took as long as all answers of the step."""
    targets = [LevelTarget(0), LevelTarget(100)]
    plan = AnswerPlan(max_tokens=4)
    rivals = tuple(rival_source(2, target, plan, seed=0) for target in targets)
    policy: Any = Policy()
    accelerator: Any = None
    reward = Reward([NumberScorer()], {"r": 1.0}, rivals=2)
    learner = Learner(
        policy, tuple(targets), reward, plan, Sampling(), PROMPTS, accelerator, rivals
    )
    prompts = ["a|0", "b|0", "c|0", "d|0"]
    draw_rivals(learner, [(prompts[:2], 0), (prompts[2:], 1)])
    assert [target.asked for target in targets] == [["a|0", "d|0"], ["b|0", "c|0"]]
    assert [len(target.seeds) for target in targets] == [1, 1]
    assert learner.rivals_of(0, ["d|0"]) == [("0", "0")]
    assert len(targets[0].asked) == 2
