"""Rollouts: draw rewrites, let the frozen target answer them, score the answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.reward import Reward, complaints
from alignpro_lite.target.rollout import Answer, AnswerOrFailure, AnswerPlan, Target
from alignpro_lite.train.policy import Policy


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


@dataclass
class Tally:
    """What went wrong in a rollout, and what it cost.

    Attributes:
        calls: Answers that the target was asked for.
        answer_tokens: Tokens of the answers that came.
        empty: Rewrites without a visible character.
        target: Answers that the target failed to give.
        reward: Answers without a finite reward.
        reasons: What targets and rewards said, a sentence each.
    """

    calls: int = 0
    answer_tokens: int = 0
    empty: int = 0
    target: int = 0
    reward: int = 0
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Rollout:
    """The groups of one step, and what they cost."""

    groups: tuple[Group, ...]
    tally: Tally


def roll_out(
    policy: Policy,
    target: Target,
    reward: Reward,
    plan: AnswerPlan,
    prompts: Sequence[str],
    rewrites: int,
    seed: int,
) -> Rollout:
    """Draw and score rewrites of prompts.

    A rewrite that is empty, or whose answers all fail, is left out of its group and counted; a
    group of fewer than two rewrites is left out as a whole.

    Args:
        policy: ρ_θ; rewrites come from it as of its last `refresh_sampler`.
        target: π_F.
        reward: r*; sees the original prompt.
        plan: How the target is asked.
        prompts: Different prompts x.
        rewrites: K, rewrites of each.
        seed: Of the rewrites and the answers; the same one gives the same rollout.

    Raises:
        AlignProError: The target or the reward failed altogether.
    """
    tally = Tally()
    drawn = policy.sample(prompts, rewrites, seed)
    candidates = [
        (prompt, output)
        for prompt, outputs in zip(prompts, drawn, strict=True)
        for output in outputs
        if _is_written(policy, output, tally)
    ]
    if not candidates:
        return Rollout((), tally)
    scored = _scored(policy, target, reward, plan, candidates, seed, tally)
    trie = policy.pack([prompt for prompt, _ in candidates], [output for _, output in candidates])
    reference = policy.reference_log_probs(trie).tolist()
    groups = []
    for prompt in prompts:
        rows = [
            row
            for row, (asked, _) in enumerate(candidates)
            if asked == prompt and math.isfinite(scored.rewards[row])
        ]
        if len(rows) >= 2:
            groups.append(_group(prompt, rows, candidates, reference, scored))
    return Rollout(tuple(groups), tally)


@dataclass(frozen=True)
class _Scored:
    """Mean reward and mean parts of each candidate; NaN where none of its answers has one."""

    rewards: np.ndarray[tuple[int], np.dtype[np.float64]]
    parts: Mapping[str, np.ndarray[tuple[int], np.dtype[np.float64]]]


def _is_written(policy: Policy, output: tuple[int, ...], tally: Tally) -> bool:
    written = bool(policy.tokens.decode(output).strip())
    tally.empty += not written
    return written


def _scored(
    policy: Policy,
    target: Target,
    reward: Reward,
    plan: AnswerPlan,
    candidates: Sequence[tuple[str, tuple[int, ...]]],
    seed: int,
    tally: Tally,
) -> _Scored:
    template = policy.tokens.template
    conversations = [
        [Message("user", template.apply(prompt, policy.tokens.decode(output)))]
        for prompt, output in candidates
    ]
    answers = target.answers(conversations, plan, seed)
    owners, exchanges = [], []
    for row, (prompt, _) in enumerate(candidates):
        for answer in _given(answers[row], tally):
            owners.append(row)
            exchanges.append(Exchange(prompt, answer.text))
    scores = reward.score(exchanges)
    tally.reward += int(scores.failed.sum())
    tally.reasons.extend(complaints(scores))
    owner = np.array(owners, dtype=np.int64)
    return _Scored(
        _means(scores.total, owner, len(candidates)),
        {name: _means(values, owner, len(candidates)) for name, values in scores.parts.items()},
    )


def _given(outcomes: Iterable[AnswerOrFailure], tally: Tally) -> list[Answer]:
    """The answers that came; the others are counted."""
    answers = []
    for outcome in outcomes:
        tally.calls += 1
        if isinstance(outcome, Answer):
            tally.answer_tokens += outcome.tokens or 0
            answers.append(outcome)
        else:
            tally.target += 1
            tally.reasons.append(outcome.reason)
    return answers


def _means(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    owner: np.ndarray[tuple[int], np.dtype[np.int64]],
    count: int,
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Mean of the finite values of each owner."""
    finite = np.isfinite(values)
    totals = np.bincount(owner[finite], values[finite], minlength=count)
    numbers = np.bincount(owner[finite], minlength=count)
    with np.errstate(invalid="ignore"):
        return totals / numbers


def _group(
    prompt: str,
    rows: Sequence[int],
    candidates: Sequence[tuple[str, tuple[int, ...]]],
    reference: Sequence[float],
    scored: _Scored,
) -> Group:
    return Group(
        prompt=prompt,
        outputs=tuple(candidates[row][1] for row in rows),
        log_reference=tuple(reference[row] for row in rows),
        rewards=tuple(float(scored.rewards[row]) for row in rows),
        parts={
            name: tuple(float(values[row]) for row in rows) for name, values in scored.parts.items()
        },
    )
