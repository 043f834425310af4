"""How far R spreads over the rewrites of a prompt, and the λ that follows from it."""

from __future__ import annotations

import math

from alignpro_lite.errors import InputError
from alignpro_lite.measure.statistics import Estimate, FloatArray, bootstrap_mean


def spread_between(first: FloatArray, second: FloatArray, seed: int) -> Estimate:
    """Standard deviation of R over the rewrites of a prompt, without the noise of the answers.

    Two measurements of the same rewrites share R and no noise, so their covariance over the
    rewrites is the variance of R, whatever the law of the noise and however large it is.

    Args:
        first: Mean reward of some answers to each rewrite, shape (prompts, rewrites), at least two
            of each.
        second: That of other answers to the same rewrites, likewise.
        seed: Of the bootstrap over prompts.

    Returns:
        In the unit of the reward; 0 where the covariance is not above 0.

    Raises:
        InputError: There are fewer than two prompts, or a reward is not finite.
    """
    centred = [side - side.mean(axis=1, keepdims=True) for side in (first, second)]
    covariances = (centred[0] * centred[1]).sum(axis=1) / (first.shape[1] - 1)
    variance = bootstrap_mean(covariances, seed)
    ends = (variance.value, variance.low, variance.high)
    return Estimate(*(math.sqrt(max(0.0, end)) for end in ends))


def strength_for(spread: float, nats: float) -> float:
    """λ at which ρ* is some nats away from ρ_sft.

    Where R is normal over the rewrites with deviation s, ρ* = ρ_sft exp(R/λ)/Z is the same law with
    its mean moved by s²/λ, so KL(ρ*‖ρ_sft) = s²/(2λ²), and λ = s/√(2 KL).

    Args:
        spread: s.
        nats: KL(ρ*‖ρ_sft) that is wanted, above 0.

    Raises:
        InputError: There is no spread.
    """
    if spread <= 0:
        raise InputError(
            "λ follows from how far rewards spread over the rewrites of a prompt, found no spread "
            "beyond the noise of the answers.",
            "Measure with more --prompts, --rewrites or --answers.",
        )
    return spread / math.sqrt(2 * nats)
