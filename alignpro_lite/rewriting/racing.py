"""Racing: which rewrites get the answers that are left. Pure numpy, knows no model.

Successive halving (Karnin et al. 2013), in which the prompt itself races to the end. Every rewrite
has a few answers already. What is left is spent in heats: the better half, by posterior mean, and
the prompt share the answers of a heat equally, then the better half of those, down to one rewrite
against the prompt. A rewrite that is left behind keeps its few answers and the noise in them.

The counts depend on the answers. The posterior does not mind: what decided how many answers there
are is no part of their likelihood once they are known, so `posterior` is as right as with equal
counts. Plain means do: the mean of a rewrite that was left behind because it looked bad is too low.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.rewriting.posterior import Vector


@dataclass(frozen=True)
class Heat:
    """A round of a race.

    Attributes:
        rewrites: How many of the best rewrites take part; the prompt always does.
        answers: How many answers they and the prompt share.
    """

    rewrites: int
    answers: int


def heats(rewrites: int, answers: int) -> list[Heat]:
    """Plan a race.

    The first heat is for half of the rewrites, or for as many as leave an answer for each of those
    that take part, and for the prompt, in every heat.

    Args:
        rewrites: How many there are, at least one.
        answers: How many answers are left, for rewrites and prompt together.
    """
    first = (rewrites + 1) // 2
    while first > 1 and (first + 1) * len(_halved(first)) > answers:
        first -= 1
    sizes = _halved(first)
    each, more = divmod(answers, len(sizes))
    last = len(sizes) - 1
    return [Heat(size, each + more * (turn == last)) for turn, size in enumerate(sizes)]


def _halved(size: int) -> list[int]:
    """A number, its half rounded up, and so on down to 1."""
    sizes = [size]
    while sizes[-1] > 1:
        sizes.append((sizes[-1] + 1) // 2)
    return sizes


def allot(worth: Vector, heat: Heat) -> tuple[int, NDArray[np.int64]]:
    """Share out the answers of a heat.

    Args:
        worth: Posterior mean of R of each rewrite; shape (rewrites,).
        heat: Which heat.

    Returns:
        Answers for the prompt, and for each rewrite, shape (rewrites,). What cannot be shared
        equally goes to the prompt first, then to the best.
    """
    each, more = divmod(heat.answers, heat.rewrites + 1)
    best = np.argsort(-worth, kind="stable")[: heat.rewrites]
    counts = np.zeros(len(worth), np.int64)
    counts[best] = each
    counts[best[: max(0, more - 1)]] += 1
    return each + min(more, 1), counts
