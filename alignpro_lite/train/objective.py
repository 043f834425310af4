"""The training objective: the spread of the log-ratio to ρ*, which is zero exactly at ρ*.

For K rewrites x'_k of one prompt x, let

    a_k = R̂_k / λ - [log ρ_θ(x'_k | x) - log ρ_sft(x'_k | x)].

By Lemma 5.1 of the Align-Pro paper, ρ_θ = ρ* if and only if a_k = log Z(x) for
every k, so the variance of a over k is a loss that needs neither Z nor a value
network (log-variance divergence; Richter, Boustati, Nüsken, Ruiz, Akyildiz 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Spread:
    """The loss of a batch and what it is made of.

    Attributes:
        loss: λ²/2 times the mean over prompts of the variance of a; scalar, differentiable.
        residual: Mean over prompts of the standard deviation of a in nats; where the rewards have
            no noise, a distance to ρ*; scalar, detached.
        log_z: Mean of a over k, an estimate of log Z(x); shape (prompts,), detached.
    """

    loss: Tensor
    residual: Tensor
    log_z: Tensor


def log_variance(
    log_policy: Tensor, log_reference: Tensor, rewards: Tensor, strength: float
) -> Spread:
    """The log-variance loss of rewrites grouped by prompt.

    Valid for rewrites from any distribution with full support, so old ones may be
    replayed. For rewrites drawn from ρ_θ itself its gradient is λ² times that of
    KL(ρ_θ ‖ ρ*) as estimated by REINFORCE with leave-one-out baselines: because of the
    variance's K - 1, (a_k - mean of a) K / (K - 1) is a_k less the mean of the others.
    Independent noise in the rewards only adds a constant to its expectation.

    Args:
        log_policy: log ρ_θ(x'|x), summed over tokens, stop token included, at temperature 1;
            shape (prompts, K), differentiable, K >= 2.
        log_reference: log ρ_sft(x'|x) likewise; same shape.
        rewards: R̂(x, x'); same shape.
        strength: The prompter tuning parameter λ > 0.

    Returns:
        The loss and its parts.

    Raises:
        ValueError: λ is not positive or there are fewer than two rewrites a prompt.
    """
    if strength <= 0:
        raise ValueError(f"λ must be above 0, found {strength}")
    if log_policy.shape[-1] < 2:
        raise ValueError(f"a spread needs 2 rewrites a prompt, found {log_policy.shape[-1]}")
    target = (rewards / strength + log_reference).detach()
    ratio = target - log_policy
    variance = ratio.var(dim=-1, unbiased=True)
    return Spread(
        loss=strength**2 / 2 * variance.mean(),
        residual=variance.detach().sqrt().mean(),
        log_z=ratio.detach().mean(dim=-1),
    )
