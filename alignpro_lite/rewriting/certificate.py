"""What a draw from ρ* rests on: how many candidates, how close, what was refused, and why."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
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
class Estimate:
    """An estimate of R(x, x') and its 90 % interval, by Student's t.

    Attributes:
        mean: R̂.
        low: Lower end; R is above it with probability 0.95. -inf for a single answer.
        high: Upper end; R is below it with probability 0.95. inf for a single answer.
        answers: How many answers it is the mean of.
    """

    mean: float
    low: float
    high: float
    answers: int


@dataclass(frozen=True)
class Certificate:
    """How a rewrite was chosen.

    Attributes:
        drawn: N, candidates that were drawn; 0 if there was no prompter to ask.
        scored: How many of them have a reward.
        answers: M, trial answers to each candidate; 0 if no reward was used.
        strength: λ; None if no reward was used.
        diagnostics: What the weights say, see `rho_star`; None if no candidate has a reward.
        acceptance: Share of proposals that Metropolis-Hastings accepted; None for fewer than two.
        before: R̂ of the prompt as it is; None if it was not measured.
        after: R̂ of the drawn rewrite. With the guard it rests on answers that had no part in the
            draw; without, on those that did, which flatter it.
        gain: What the guard compared; None if it was not asked.
        refused: How many candidates were refused, by kind (see `refusal`).
        dropped: Candidates without a reward, a phrase each.
        target_tokens: Tokens that the target decoded for the choice.
        notes: What is suspicious about the rewards, a sentence each.
        reason: Why the prompt in use was chosen, one phrase.
        changes: From the prompt to what was sent, in order.
    """

    drawn: int
    scored: int
    answers: int
    strength: float | None
    diagnostics: Diagnostics | None
    acceptance: float | None
    before: Estimate | None
    after: Estimate | None
    gain: Gain | None
    refused: Mapping[str, int]
    dropped: tuple[str, ...]
    target_tokens: int
    notes: tuple[str, ...]
    reason: str
    changes: tuple[Change, ...]


def estimate(rewards: NDArray[np.float64]) -> Estimate | None:
    """Estimate R from the rewards of some answers; None if there are none."""
    count = len(rewards)
    if count == 0:
        return None
    mean = float(rewards.mean())
    if count == 1:
        return Estimate(mean, -math.inf, math.inf, 1)
    width = student_95(count - 1) * float(rewards.std(ddof=1)) / math.sqrt(count)
    return Estimate(mean, mean - width, mean + width, count)


def changes_between(before: str, after: str) -> tuple[Change, ...]:
    """The difference of two texts, word by word, white space kept."""
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
