"""Records of an evaluation made by hand, and a bench whose target needs no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.reward.reward import Reward
from alignpro_lite.target.rollout import Answer, AnswerPlan

JUDGE = "reward"


class SpokenTarget:
    """Answers what a function makes of the last message and the seed."""

    def __init__(self, say: Callable[[str, int], str] = lambda text, seed: text) -> None:
        self.say = say
        self.asked: list[str] = []

    def answers(self, conversations, plan, seeds):
        self.asked += [said[-1].content for said in conversations for _ in range(plan.count)]
        return [
            [Answer(self.say(said[-1].content, seed), None, "stop")] * plan.count
            for said, seed in zip(conversations, seeds, strict=True)
        ]

    def close(self):
        pass


class FunctionScorer:
    """Scores answers by a function."""

    def __init__(self, name: str, score: Callable[[str], float]) -> None:
        self.names = (name,)
        self._score = score

    def score(self, exchanges):
        return np.array([[self._score(exchange.answer)] for exchange in exchanges])

    def close(self):
        pass


def bench_of(target, count=2, **judges: Callable[[str], float]) -> Bench:
    """A bench with a judge for each function; by default, longer answers are better."""
    functions = judges or {JUDGE: lambda answer: float(len(answer))}
    rewards = {
        name: Reward([FunctionScorer(name, score)], {name: 1.0})
        for name, score in functions.items()
    }
    return Bench(target, rewards, AnswerPlan(count=count, max_tokens=8))


def lineup_of(systems: Mapping[str, Sequence[str]], prompts=4, **more) -> Lineup:
    """A lineup over data sets that the systems name, each of some prompts."""
    data = dict.fromkeys(name for names in systems.values() for name in names)
    return Lineup(
        prompts={name: [f"{name} {number}" for number in range(prompts)] for name in data},
        systems=systems,
        judges=(JUDGE,),
        baseline=next(iter(systems)),
        oracle=None,
        seed=0,
        **more,
    )


def records_of(
    lineup: Lineup, rewards: Callable[[str, int], Sequence[float | None]]
) -> list[ResultRow]:
    """A record for every prompt of every system, with the rewards that a function gives."""
    return [
        ResultRow(
            data=data,
            system=system,
            number=number,
            prompt=prompt,
            sent=(prompt,) * len(rewards(system, number)),
            answers=("an answer",) * len(rewards(system, number)),
            rewards={judge: tuple(rewards(system, number)) for judge in lineup.judges},
            log_ratios=(),
            reason="",
            seconds=1.0,
            cut=(False,) * len(rewards(system, number)),
        )
        for system, answered in lineup.systems.items()
        for data in answered
        for number, prompt in enumerate(lineup.prompts[data])
    ]
