"""A problem small enough to enumerate: every quantity of the theory has its exact value here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PROMPTS, VOCABULARY, LENGTH = 3, 7, 3
REWRITES = VOCABULARY**LENGTH


class TablePolicy(nn.Module):
    """ρ(x'|x) token by token, one table of logits for each position given all tokens before it.

    Tables can express every distribution with full support, ρ* among them.
    """

    def __init__(self, spread: float, generator: torch.Generator) -> None:
        super().__init__()
        self.tables = nn.ParameterList(
            spread * torch.randn(PROMPTS, VOCABULARY**position, VOCABULARY, generator=generator)
            for position in range(LENGTH)
        )

    def forward(self) -> Tensor:
        """Exact log ρ(x'|x) of every rewrite; shape (PROMPTS, REWRITES)."""
        total = torch.zeros(PROMPTS, 1)
        for table in self.tables:
            total = (total[:, :, None] + torch.log_softmax(table, -1)).flatten(1)
        return total


@dataclass(frozen=True)
class Problem:
    """Exact R(x, x') and log ρ_sft(x'|x), both of shape (PROMPTS, REWRITES), and λ."""

    rewards: Tensor
    log_reference: Tensor
    strength: float

    @property
    def log_z(self) -> Tensor:
        """log Z(x) of Lemma 5.1; shape (PROMPTS,)."""
        return torch.logsumexp(self.log_reference + self.rewards / self.strength, -1)

    @property
    def log_optimum(self) -> Tensor:
        """log ρ*(x'|x) of Lemma 5.1; shape (PROMPTS, REWRITES)."""
        return self.log_reference + self.rewards / self.strength - self.log_z[:, None]

    def value(self, log_policy: Tensor) -> Tensor:
        """J: the expected reward less λ times the KL to ρ_sft; shape (PROMPTS,)."""
        expected = (log_policy.exp() * self.rewards).sum(-1)
        return expected - self.strength * divergence(log_policy, self.log_reference)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats over the last axis."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def variation(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Total variation of p and q over the last axis, from 0 to 1."""
    return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def draw(log_policy: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of rewrites drawn from a policy; shape (PROMPTS, count)."""
    return torch.multinomial(log_policy.detach().exp(), count, True, generator=generator)
