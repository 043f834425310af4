"""What the rewards of a few answers say about R of each rewrite. Pure numpy, knows no model.

A normal model, one-way random effects: the rewards of the answers to x' are R(x, x') plus noise of
variance σ², and R of the rewrites is spread around a mean m with variance τ². The mean of n answers
then deserves the weight s = τ²/(τ² + σ²/n), its reliability, and m the rest. How large τ and σ are
is not known from a few answers either. The reliability of a typical n has a uniform prior (Daniels
1999), m and log σ have flat ones; given s all is closed form, and s is summed over nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
"""Floats; docstrings give the shape."""

# Odds s/(1 - s) of the reliability at each node, and the weight of the node under a uniform s.
_ODDS = np.exp(np.linspace(-20, 20, 121))
_NODE_WEIGHTS = _ODDS / (1 + _ODDS) ** 2


@dataclass(frozen=True)
class Tally:
    """Rewards of the answers to K different rewrites, summed up; leading axes are requests.

    Attributes:
        count: Answers to each rewrite; shape (..., K).
        mean: R̂, their mean reward, any number where there are none; shape (..., K).
        squares: Sum of the squared differences of answers from the mean of their prompt; shape
            (...).
        degrees: Degrees of freedom of `squares`; shape (...).
    """

    count: Vector
    mean: Vector
    squares: Vector
    degrees: Vector


@dataclass(frozen=True)
class Posterior:
    """What is known about R of K rewrites; leading axes are requests.

    The covariance is that of independent parts and of some that all share: diag(own) + F Fᵀ.

    Attributes:
        mean: R̃, the posterior mean; shape (..., K).
        own: Shape (..., K); infinite where a single answer is all there is.
        shared: F; shape (..., K, parts).
        reliability: Expected s of each R̂, 0 to 1; shape (..., K).
    """

    mean: Vector
    own: Vector
    shared: Vector
    reliability: Vector

    @property
    def variance(self) -> Vector:
        """Of each R; shape (..., K)."""
        variance: Vector = self.own + (self.shared**2).sum(axis=-1)
        return variance

    def variance_of_mean(self, share: Vector) -> float:
        """Of the mean of R over rewrites with these shares, for one request."""
        return float(self.own @ share**2 + ((share @ self.shared) ** 2).sum())


def tally(answers: Sequence[Vector], beside: Sequence[Vector] = ()) -> Tally:
    """Sum up rewards.

    Args:
        answers: Of the answers to each different rewrite, at least one.
        beside: Of answers to other prompts, which show how large the noise is and nothing else.
    """
    every = [rewards for rewards in (*answers, *beside) if len(rewards)]
    return Tally(
        count=np.array([len(rewards) for rewards in answers], np.float64),
        mean=np.array([rewards.mean() for rewards in answers]),
        squares=np.array(math.fsum(((side - side.mean()) ** 2).sum() for side in every)),
        degrees=np.array(math.fsum(len(side) - 1 for side in every)),
    )


def posterior(found: Tally) -> Posterior:
    """The posterior of R given all answers; every rewrite learns from those to the others."""
    weights, centre, noise = _nodes(found)
    size, count = _sizes(found)
    ratio = (_ODDS * size / count)[..., None]  # τ²/σ², shape (..., nodes, 1)
    counts = found.count[..., None, :]
    kept = counts * ratio / (1 + counts * ratio)
    means = kept * found.mean[..., None, :] + (1 - kept) * centre[..., None]
    mean = (weights[..., None] * means).sum(axis=-2)
    # Given s: of each R around m, and of m, which all share; then how R̃ varies with s.
    own = (weights * noise)[..., None] * ratio / (1 + counts * ratio)
    of_centre = weights * noise / (counts / (1 + counts * ratio)).sum(axis=-1)
    parts = (
        np.sqrt(of_centre)[..., None] * (1 - kept),
        np.sqrt(weights)[..., None] * (means - mean[..., None, :]),
    )
    return Posterior(
        mean=mean,
        own=own.sum(axis=-2),
        shared=np.swapaxes(np.concatenate(parts, axis=-2), -1, -2),
        reliability=(weights[..., None] * kept).sum(axis=-2),
    )


def _nodes(found: Tally) -> tuple[Vector, Vector, Vector]:
    """Posterior weight of every node, and given it the mean of m and of σ²; shape (..., nodes)."""
    size, count = _sizes(found)
    counts, ratio = found.count[..., None, :], (_ODDS * size / count)[..., None]
    precision = counts / (1 + counts * ratio)  # σ² over the variance of R̂ around m
    total = precision.sum(axis=-1)
    centre = (precision * found.mean[..., None, :]).sum(axis=-1) / total
    between = (precision * (found.mean[..., None, :] - centre[..., None]) ** 2).sum(axis=-1)
    squares = found.squares[..., None] + between
    degrees = found.degrees[..., None] + size - 1
    likelihood = -0.5 * (
        np.log1p(counts * ratio).sum(axis=-1)
        + np.log(total)
        + degrees * np.log(np.maximum(squares, np.finfo(np.float64).tiny))
    )
    weights = _NODE_WEIGHTS * np.exp(likelihood - likelihood.max(axis=-1, keepdims=True))
    noise = np.where(degrees > 0, squares / np.maximum(degrees - 2, 1), math.inf)
    return weights / weights.sum(axis=-1, keepdims=True), centre, noise


def _sizes(found: Tally) -> tuple[Vector, Vector]:
    """How many rewrites have answers, and how many answers there are; shape (..., 1)."""
    return (
        (found.count > 0).sum(axis=-1)[..., None].astype(np.float64),
        found.count.sum(axis=-1)[..., None],
    )
