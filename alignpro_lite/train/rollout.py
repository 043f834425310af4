"""Rollouts: draw rewrites, let the frozen target answer them, score the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import Sampling, stream_seed, stream_seeds
from alignpro_lite.errors import TrainingError
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.reward.exchange import Exchange, References
from alignpro_lite.reward.leak import gives_away
from alignpro_lite.reward.reward import Reward, Scores, score_warnings
from alignpro_lite.reward.rivals import RivalSource, no_rivals
from alignpro_lite.target.rollout import Answer, AnswerOrFailure, AnswerPlan, Target
from alignpro_lite.train.policy import Policy

Found = TypeVar("Found")

_MEASURED_TOGETHER = 16
"""Prompts whose outputs `mean_reward` draws in one batch."""

_AGAIN = 2**31 - 1
"""Number of the random stream of a second measurement; no conversation has it."""
_POOL_SEED = 2**31
"""Beyond every number of a conversation: the random streams of further targets begin here."""


@dataclass(frozen=True)
class Group:
    """Rewrites of one prompt that were paid for with calls of the target.

    Attributes:
        prompt: x.
        outputs: Token ids of each rewrite.
        log_reference: log ρ_sft of each, in nats.
        rewards: R̂ of each, the mean reward of its answers.
        parts: The same for each named part, unweighted.
    """

    prompt: str
    outputs: tuple[tuple[int, ...], ...]
    log_reference: tuple[float, ...]
    rewards: tuple[float, ...]
    parts: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Learner:
    """All that takes part in a run.

    Attributes:
        policy: ρ_θ with its reference.
        targets: The frozen π_F; of several, the prompts of a step are answered by one each, in
            turn.
        reward: r*; it scores the original prompt.
        plan: How the target is asked.
        sampling: How the policy is drawn from; its log-probabilities are at that temperature. The
            objective holds for whatever was drawn, so filters need no correction.
        prompts: Training prompts; every process sees them all and takes its own.
        accelerator: Which process this is, and how it talks to the others.
        rivals: What a judge of pairs compares the answers of each target with; empty without one.
        references: Right answers, by the prompt, where they are known: a rewrite that gives one
            away is not tried.
    """

    policy: Policy
    targets: tuple[Target, ...]
    reward: Reward
    plan: AnswerPlan
    sampling: Sampling
    prompts: Sequence[str]
    accelerator: Accelerator
    rivals: tuple[RivalSource, ...] = ()
    references: References = field(default_factory=dict)

    @property
    def target(self) -> Target:
        """The one that is measured with."""
        return self.targets[0]

    def rivals_of(self, target: int, prompts: Sequence[str]) -> list[tuple[str, ...]]:
        """What the answers of a target, by its number, to each prompt are compared with."""
        source = self.rivals[target] if self.rivals else no_rivals
        return source(prompts)


@dataclass
class Rollout:
    """The groups of one step, what they cost, and what went wrong.

    Attributes:
        groups: What can be learned from.
        calls: Answers that the target was asked for.
        answer_tokens: Tokens of the answers that came.
        empty: Rewrites x' without a visible character. The empty hint is not one: there x' = x.
        leaked: Rewrites that give the right answer away.
        unanswered: Answers that the target failed to give.
        unscored: Answers without a finite reward.
        reasons: What targets and rewards said about failures, one sentence each.
    """

    groups: list[Group] = field(default_factory=list)
    calls: int = 0
    answer_tokens: int = 0
    empty: int = 0
    leaked: int = 0
    unanswered: int = 0
    unscored: int = 0
    reasons: list[str] = field(default_factory=list)


def roll_out(learner: Learner, prompts: Sequence[str], rewrites: int, seed: int) -> Rollout:
    """Draw and score rewrites of prompts.

    A rewrite x' that is empty, that gives the right answer away, or whose answers all fail, is left
    out of its group and counted; a group of fewer than two rewrites is left out as a whole.

    Args:
        learner: Rewrites come from its policy as of the last `refresh_sampler`.
        prompts: Prompts x, without duplicates.
        rewrites: K, rewrites of each.
        seed: Seed of the rewrites and the answers; the same seed gives the same rollout.

    Raises:
        AlignProError: The target or the reward failed altogether.
    """
    policy, rollout = learner.policy, Rollout()
    candidates = []
    for prompt, output in _drawn(learner, prompts, rewrites, seed):
        sent = _sent(policy, prompt, output)
        if not sent.strip():
            rollout.empty += 1
        elif gives_away(prompt, sent, learner.references.get(prompt)):
            rollout.leaked += 1
        else:
            candidates.append((prompt, output))
    if not candidates:
        return rollout
    scores = _scores(learner, candidates, seed, rollout)
    trie = policy.pack([prompt for prompt, _ in candidates], [output for _, output in candidates])
    reference = policy.reference_log_probs(trie, learner.sampling.temperature).tolist()
    for prompt in prompts:
        rows = [
            row
            for row, (asked, _) in enumerate(candidates)
            if asked == prompt and math.isfinite(scores.total[row])
        ]
        if len(rows) >= 2:
            rollout.groups.append(
                Group(
                    prompt=prompt,
                    outputs=tuple(candidates[row][1] for row in rows),
                    log_reference=tuple(reference[row] for row in rows),
                    rewards=tuple(float(scores.total[row]) for row in rows),
                    parts={
                        name: tuple(float(values[row]) for row in rows)
                        for name, values in scores.parts.items()
                    },
                )
            )
    return rollout


def draw_rivals(learner: Learner, steps: Iterable[tuple[Sequence[str], int]]) -> None:
    """Draw the rivals of several steps together: few of them take as long as many.

    Args:
        learner: Keeps them.
        steps: The prompts of each step, and its seed, as `roll_out` gets them.
    """
    wanted: list[str] = []
    turns: list[int] = []
    for prompts, seed in steps:
        wanted += prompts
        turns += _turns(learner, prompts, seed)
    _rivals(learner, turns, wanted)


def mean_reward(learner: Learner, prompts: Sequence[str], count: int, seed: int) -> float:
    """Mean reward of the policy as of the last `refresh_sampler`, over answers with a score.

    Args:
        learner: What draws, answers and scores.
        prompts: Prompts x, without duplicates.
        count: Outputs drawn for each.
        seed: Seed of the outputs and the answers; the same seed shares luck between measurements.

    Raises:
        TrainingError: No answer has a score.
        AlignProError: The target or the reward failed altogether.
    """
    scores: list[float] = []
    for start in range(0, len(prompts), _MEASURED_TOGETHER):
        own = stream_seed(seed, start)
        candidates = _drawn(learner, prompts[start : start + _MEASURED_TOGETHER], count, own)
        scores += _scores(learner, candidates, own, Rollout()).total.tolist()
    known = [score for score in scores if math.isfinite(score)]
    if not known:
        raise TrainingError(
            f"None of {len(scores)} answers to the prompts set apart has a score.",
            "Fix the target or the reward; the same command resumes from the last checkpoint.",
        )
    return math.fsum(known) / len(known)


def measured_twice(
    learner: Learner, prompts: Sequence[str], rewrites: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Measure the same rewrites by two sets of answers that share no noise.

    Args:
        learner: What draws, answers and scores.
        prompts: Prompts x, without duplicates.
        rewrites: Drawn for each.
        seed: Of the rewrites and all answers.

    Returns:
        R̂ by either set, shape (prompts, rewrites); a prompt with a rewrite that could not be
        measured is left out.

    Raises:
        AlignProError: The target or the reward failed altogether.
    """
    found: list[list[FloatArray]] = [[], []]
    for start in range(0, len(prompts), _MEASURED_TOGETHER):
        own = stream_seed(seed, start)
        candidates = _drawn(learner, prompts[start : start + _MEASURED_TOGETHER], rewrites, own)
        for side, again in zip(found, (own, stream_seed(own, _AGAIN)), strict=True):
            scores = _scores(learner, candidates, again, Rollout())
            side.append(scores.total.reshape(-1, rewrites))
    first, second = (np.concatenate(side) for side in found)
    known = np.isfinite(first + second).all(axis=1)
    return first[known], second[known]


def _drawn(
    learner: Learner, prompts: Sequence[str], count: int, seed: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Outputs of the policy for each prompt, with it."""
    drawn = learner.policy.sample(prompts, count, replace(learner.sampling, seed=seed))
    return [
        (prompt, output)
        for prompt, outputs in zip(prompts, drawn, strict=True)
        for output in outputs
    ]


def _sent(policy: Policy, prompt: str, output: Sequence[int]) -> str:
    """What the target gets, x'."""
    return policy.tokens.template.apply(prompt, policy.tokens.decode(output))


def _scores(
    learner: Learner,
    candidates: Sequence[tuple[str, tuple[int, ...]]],
    seed: int,
    rollout: Rollout,
) -> Scores:
    """Mean reward and mean parts of each candidate; NaN where none of its answers has a score."""
    conversations = [
        [Message("user", _sent(learner.policy, prompt, output))] for prompt, output in candidates
    ]
    prompts = [prompt for prompt, _ in candidates]
    turns = _turns(learner, prompts, seed)
    outcomes = _answers(learner, turns, conversations, seed)
    rivals = _rivals(learner, turns, prompts)
    owners, exchanges = [], []
    for row, prompt in enumerate(prompts):
        for answer in _given(outcomes[row], rollout):
            owners.append(row)
            exchanges.append(Exchange(prompt, answer.text, rivals[row]))
    scores = learner.reward.score(exchanges)
    rollout.unscored += int(scores.failed.sum())
    rollout.reasons.extend(score_warnings(scores))
    owner = np.array(owners, dtype=np.int64)
    return Scores(
        _means(scores.total, owner, len(candidates)),
        {name: _means(values, owner, len(candidates)) for name, values in scores.parts.items()},
    )


def _turns(learner: Learner, prompts: Sequence[str], seed: int) -> list[int]:
    """Number of the target whose turn each prompt is.

    All rewrites of a prompt are answered by one target, or its level of reward would be taken for
    a difference between them. Which is the first of a step depends on the seed.
    """
    turns = {prompt: turn for turn, prompt in enumerate(dict.fromkeys(prompts), start=seed)}
    return [turns[prompt] % len(learner.targets) for prompt in prompts]


def _answers(
    learner: Learner,
    turns: Sequence[int],
    conversations: Sequence[Sequence[Message]],
    seed: int,
) -> list[list[AnswerOrFailure]]:
    """Answers to each conversation, by the target whose turn it is."""

    def ask(turn: int, rows: list[int]) -> list[list[AnswerOrFailure]]:
        own = stream_seed(seed, _POOL_SEED + turn) if turn else seed
        asked = [conversations[row] for row in rows]
        return learner.targets[turn].answers(asked, learner.plan, stream_seeds(own, len(rows)))

    return _in_turn(turns, ask)


def _rivals(
    learner: Learner, turns: Sequence[int], prompts: Sequence[str]
) -> list[tuple[str, ...]]:
    """What answers to each prompt are compared with, by the target whose turn it is."""
    return _in_turn(
        turns, lambda turn, rows: learner.rivals_of(turn, [prompts[row] for row in rows])
    )


def _in_turn(turns: Sequence[int], ask: Callable[[int, list[int]], list[Found]]) -> list[Found]:
    """What is found for each row, asking each target once, for all rows whose turn it is.

    Args:
        turns: The number of the target of each row.
        ask: Gives what is found for some rows of a target.
    """
    found: dict[int, Found] = {}
    for turn in sorted(set(turns)):
        rows = [row for row, own in enumerate(turns) if own == turn]
        found |= zip(rows, ask(turn, rows), strict=True)
    return [found[row] for row in range(len(turns))]


def _given(outcomes: Iterable[AnswerOrFailure], rollout: Rollout) -> list[Answer]:
    """The answers that came; all are counted."""
    answers = []
    for outcome in outcomes:
        rollout.calls += 1
        if isinstance(outcome, Answer):
            rollout.answer_tokens += outcome.tokens or 0
            answers.append(outcome)
        else:
            rollout.unanswered += 1
            rollout.reasons.append(outcome.reason)
    return answers


def _means(values: FloatArray, owner: NDArray[np.int64], count: int) -> FloatArray:
    """Mean of the finite values of each owner, shape (count,); NaN where there is none."""
    finite = np.isfinite(values)
    totals = np.bincount(owner[finite], values[finite], minlength=count)
    numbers = np.bincount(owner[finite], minlength=count)
    with np.errstate(invalid="ignore"):
        means: FloatArray = totals / numbers
    return means
