"""A toy on which every term of Theorem 6.1 has its exact value, by summing over all texts.

Rewrite 0 is the prompt itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Toy:
    """Prompts with all their rewrites and answers.

    Attributes:
        target: π_F(y|x'), shape (prompts, rewrites, answers).
        reference: ρ_sft(x'|x), shape (prompts, rewrites).
        rewards: r*(x, y), shape (prompts, answers), in any range.
        strength: λ.
        best: π*(y|x), shape (prompts, answers).
    """

    target: Array
    reference: Array
    rewards: Array
    strength: float
    best: Array

    @property
    def worth(self) -> Array:
        """R(x, x'), shape (prompts, rewrites)."""
        return np.einsum("pxy,py->px", self.target, self.rewards)

    @property
    def log_z(self) -> Array:
        """log Z(x), shape (prompts,)."""
        exponents = self.worth / self.strength
        top = exponents.max(axis=1)
        return top + np.log((self.reference * np.exp(exponents - top[:, None])).sum(axis=1))

    @property
    def optimum(self) -> Array:
        """ρ*(x'|x) of Lemma 5.1, shape (prompts, rewrites)."""
        return self.reference * np.exp(self.worth / self.strength - self.log_z[:, None])

    @property
    def kl(self) -> Array:
        """KL(ρ*‖ρ_sft), shape (prompts,)."""
        share = self.optimum
        ratio = np.log(share, where=share > 0, out=np.zeros_like(share)) - np.log(self.reference)
        return (share * ratio).sum(axis=1)

    @property
    def r_max(self) -> float:
        return float(np.ptp(self.rewards))

    @property
    def oracle_variation(self) -> Array:
        """d_TV(π*(·|x), π_F(·|x)), shape (prompts,)."""
        return np.abs(self.best - self.target[:, 0]).sum(axis=1) / 2

    @property
    def rewrite_variation(self) -> Array:
        """E_{x'~ρ_sft} d_TV(π_F(·|x), π_F(·|x')), shape (prompts,)."""
        apart = np.abs(self.target - self.target[:, :1]).sum(axis=2) / 2
        return (self.reference * apart).sum(axis=1)

    @property
    def right(self) -> Array:
        """The right side for each prompt."""
        apart = self.oracle_variation + self.rewrite_variation
        return self.r_max * apart - self.strength * self.kl

    @property
    def reached(self) -> Array:
        """J(π̃_ρ*) of each prompt."""
        return (self.optimum * self.worth).sum(axis=1)

    @property
    def gap(self) -> Array:
        """The left side for each prompt."""
        return (self.best * self.rewards).sum(axis=1) - self.reached


def random_toy(seed: int, prompts: int = 3, rewrites: int = 5, answers: int = 6) -> Toy:
    """A toy with distributions from nearly uniform to nearly certain, and λ from tiny to large.

    π* is the exact optimum, of the reward alone or of the reward less a KL to π_F.
    """
    random = np.random.default_rng(seed)
    spread = 10 ** random.uniform(-1, 1)
    target = random.dirichlet([spread] * answers, (prompts, rewrites)) + 1e-12
    target /= target.sum(axis=2, keepdims=True)
    reference = random.dirichlet([1.0] * rewrites, prompts) + 1e-9
    reference /= reference.sum(axis=1, keepdims=True)
    rewards = random.normal(random.normal(0, 5), 1, (prompts, answers))
    if random.random() < 0.5:
        best = np.eye(answers)[rewards.argmax(axis=1)]
    else:
        beta = 10 ** random.uniform(-1, 1)
        best = target[:, 0] * np.exp((rewards - rewards.max(axis=1, keepdims=True)) / beta)
        best /= best.sum(axis=1, keepdims=True)
    return Toy(target, reference, rewards, 10 ** random.uniform(-2, 1), best)
