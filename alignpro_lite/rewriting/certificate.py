"""The record of a choice: how many candidates, how close, what was refused, and why."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.rewriting.guard import Gain, student_95
from alignpro_lite.rewriting.rho_star import Diagnostics


@dataclass(frozen=True)
class Change:
    """A piece of the difference between a prompt and what was sent."""

    kind: Literal["kept", "removed", "added"]
    text: str


@dataclass(frozen=True)
class RewardEstimate:
    """An estimate of R(x, x') and its 90 % interval, by Student's t.

    Attributes:
        mean: R̂.
        low: Lower end; R is above it with probability 0.95 if rewards are normal. -inf for a single
            answer, and for equal rewards, which do not show how those of others differ.
        high: Upper end, likewise; inf for these.
        answers: How many answers it is the mean of.
    """

    mean: float
    low: float
    high: float
    answers: int


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """How a rewrite was chosen. What has a default is measured only where there is a reward.

    Attributes:
        drawn: N, candidates that were drawn; 0 without a prompter.
        scored: How many of them have a reward.
        answers: M, trial answers to each candidate; 0 if no reward was used.
        strength: λ; None if no reward was used.
        diagnostics: What the weights show, see `rho_star`; None if no candidate has a reward.
        acceptance: Share of proposals that Metropolis-Hastings accepted; None for fewer than two,
            and where no rewrite was drawn from ρ*.
        before: R̂ of the prompt as it is; None if it was not measured.
        after: R̂ of the rewrite that was drawn or won; None if no answer judged it. Under `strict`
            it is computed from answers that had no part in the draw; otherwise from those that
            decided, which makes it too high.
        gain: What the guard compared; None if it was not needed.
        refused: How many candidates were refused, by kind (see `refusal`).
        dropped: Candidates without a reward, a phrase each.
        target_tokens: Tokens that the target decoded for the choice.
        scoring_seconds: What the reward took of the time; two equal draws differ in it.
        rivals: Answers to the prompt that a judge compared each answer with; 0 without a judge.
        notes: What is suspicious about the rewards, a sentence each.
        reason: Why the prompt in use was chosen, one phrase.
        changes: From the prompt to what was sent, in order.
    """

    drawn: int = 0
    scored: int = 0
    answers: int = 0
    strength: float | None = None
    diagnostics: Diagnostics | None = None
    acceptance: float | None = None
    before: RewardEstimate | None = None
    after: RewardEstimate | None = None
    gain: Gain | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    target_tokens: int = 0
    scoring_seconds: float = field(default=0.0, compare=False)
    rivals: int = 0
    notes: tuple[str, ...] = ()
    reason: str
    changes: tuple[Change, ...]


def estimate_reward(rewards: NDArray[np.float64]) -> RewardEstimate | None:
    """Estimate R from the rewards of some answers; None if there are none."""
    count = len(rewards)
    if count == 0:
        return None
    mean = float(rewards.mean())
    if (rewards == rewards[0]).all():
        return RewardEstimate(mean, -math.inf, math.inf, count)
    width = student_95(count - 1) * float(rewards.std(ddof=1)) / math.sqrt(count)
    return RewardEstimate(mean, mean - width, mean + width, count)


def word_changes(before: str, after: str) -> tuple[Change, ...]:
    """The difference between two texts, word by word, including white space."""
    old, new = (re.findall(r"\S+|\s+", text) for text in (before, after))
    found = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new).get_opcodes():
        gone, come = "".join(old[a:b]), "".join(new[c:d])
        if tag == "equal":
            found.append(Change("kept", gone))
            continue
        if gone:
            found.append(Change("removed", gone))
        if come:
            found.append(Change("added", come))
    return tuple(found)
