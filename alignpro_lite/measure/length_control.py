"""Which of two arms wins once the length of its answers is taken out."""

from __future__ import annotations

import math

import numpy as np

from alignpro_lite.measure.statistics import (
    NORMAL_QUANTILE,
    Estimate,
    FloatArray,
    answer_differences,
    require_numbers,
    wilson,
    win_scores,
)

_RIDGE = 1e-4
"""Penalty β²/2 of a pair's mean loss: moves an ordinary fit by less than 0.001 of its value."""
_NEWTON_STEPS = 500
"""The ridge keeps |β| below 118, and a step is up to 0.7 long, so these always suffice."""


def length_controlled_win(
    first: FloatArray, second: FloatArray, first_words: FloatArray, second_words: FloatArray
) -> Estimate:
    """Probability that an answer of the first arm beats one of the second of the same length.

    Like length-controlled AlpacaEval (Dubois et al. 2024), but without its term for the difficulty
    of an instruction: a logistic regression of who wins, a tie counting half, on an intercept and
    tanh(Δ / sd(Δ)) over all pairs of answers to a prompt, where Δ is the difference in words. The
    result is the logistic of the intercept, the prediction at Δ = 0. If Δ is the same in all pairs,
    its effect cannot be separated from that of the arms, and nothing is subtracted.

    Args:
        first: Rewards, shape (prompts, answers), at least two prompts.
        second: Same shape.
        first_words: Words of the first arm's answers, same shape.
        second_words: Words of the second arm's answers, same shape.

    Returns:
        A probability. Its interval is normal on the scale of log-odds, with the sandwich variance
        of Liang and Zeger (1986) clustered by prompt; it is a little too narrow for few prompts: it
        covers the truth in about 0.90 of cases with 10 prompts and 0.94 with 60. If all pairs have
        the same outcome, it is Wilson's over prompts. If the longer answer always wins, length
        explains everything and the value means nothing.

    Raises:
        InputError: The shapes do not fit, or a number is not finite.
    """
    arms = first, second, first_words, second_words
    require_numbers("rewards and words", ("prompts", "answers"), *arms, at_least=2)
    prompts = first.shape[0]
    wins = win_scores(answer_differences(first, second))
    if wins.min() == wins.max():
        return wilson(float(wins[0, 0]) * prompts, prompts)
    extra_words = answer_differences(first_words, second_words)
    spread = float(extra_words.std())
    lengths = np.tanh(extra_words / spread) if spread else np.zeros_like(extra_words)
    intercept, error = _clustered_logit(wins, lengths)
    return Estimate(
        _logistic(intercept),
        _logistic(intercept - NORMAL_QUANTILE * error),
        _logistic(intercept + NORMAL_QUANTILE * error),
    )


def _clustered_logit(wins: FloatArray, lengths: FloatArray) -> tuple[float, float]:
    """Intercept of wins on lengths, both (prompts, pairs), and its standard error by prompt."""
    prompts, pairs = wins.shape
    design = np.stack([np.ones_like(lengths), lengths], axis=2)
    coefficients, curvature = _fit(design.reshape(-1, 2), wins.ravel())
    misses = wins - 1 / (1 + np.exp(-design @ coefficients))
    scores = np.einsum("gp,gpk->gk", misses, design) / (prompts * pairs)
    bread = np.linalg.inv(curvature)
    covariance = bread @ (scores.T @ scores) @ bread * prompts / (prompts - 1)
    return float(coefficients[0]), math.sqrt(covariance[0, 0])


def _fit(design: FloatArray, wins: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients of the logistic regression and the curvature of its mean loss there."""
    count = wins.size
    coefficients = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        chances = 1 / (1 + np.exp(-design @ coefficients))
        slope = design.T @ (chances - wins) / count + _RIDGE * coefficients
        weights = (chances * (1 - chances))[:, None]
        curvature = (weights * design).T @ design / count + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        length = float(np.linalg.norm(step))
        # Rows of the design are at most √2 long, so a step up to 1/√2 lowers the loss
        # (Bach 2010, proposition 1), while a full one may jump over the minimum.
        coefficients -= step / max(1.0, length * math.sqrt(2))
        if length < 1e-9:
            break
    return coefficients, curvature


def _logistic(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow on either side."""
    return (1 + math.tanh(log_odds / 2)) / 2
