"""The log-variance loss against closed forms on a space that can be enumerated."""

from __future__ import annotations

import math

import pytest
import torch

from alignpro_lite.train.objective import log_variance

REWRITES = 200
PROMPTS = 3


def problem(seed=0):
    """log ρ_sft and R for every rewrite, shape (PROMPTS, REWRITES)."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.log_softmax(torch.randn(PROMPTS, REWRITES, generator=generator), -1)
    return reference, torch.randn(PROMPTS, REWRITES, generator=generator)


def optimum(reference, rewards, strength):
    """Lemma 5.1: log ρ* and log Z, in closed form."""
    tilted = reference + rewards / strength
    log_z = torch.logsumexp(tilted, -1)
    return tilted - log_z[:, None], log_z


def test_hand_computed_numbers():
    # a = R/λ - (log ρ - log ρ_sft) = [1/0.5 - 1, 0 - 0] = [1, 0]; var = 0.5; loss = 0.25/2 * 0.5
    spread = log_variance(
        torch.tensor([[1.0, 0.0]]), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), strength=0.5
    )
    assert spread.loss.item() == pytest.approx(0.0625)
    assert spread.residual.item() == pytest.approx(math.sqrt(0.5))
    assert spread.log_z.tolist() == [0.5]


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_zero_exactly_at_the_optimum_and_gives_log_z(strength):
    reference, rewards = problem()
    best, log_z = optimum(reference, rewards, strength)
    spread = log_variance(best, reference, rewards, strength)
    assert spread.loss.item() == pytest.approx(0, abs=1e-9)
    assert torch.allclose(spread.log_z, log_z, atol=1e-4)
    other = torch.log_softmax(best + 0.1 * torch.randn_like(best), -1)
    assert log_variance(other, reference, rewards, strength).loss.item() > 1e-5 * strength**2


def test_the_gradient_on_policy_is_leave_one_out_reinforce():
    reference, rewards = problem()
    strength, count = 0.7, 8
    logits = torch.randn(PROMPTS, REWRITES, requires_grad=True)
    log_policy = torch.log_softmax(logits, -1)
    drawn = torch.multinomial(log_policy.exp().detach(), count, replacement=True)
    chosen = log_policy.gather(1, drawn)
    ratio = (rewards / strength + reference).gather(1, drawn) - chosen.detach()
    others = (ratio.sum(-1, keepdim=True) - ratio) / (count - 1)
    reinforce = -((ratio - others) * chosen).mean(-1).mean() * strength**2
    (expected,) = torch.autograd.grad(reinforce, logits, retain_graph=True)
    loss = log_variance(chosen, reference.gather(1, drawn), rewards.gather(1, drawn), strength).loss
    (found,) = torch.autograd.grad(loss, logits)
    assert torch.allclose(found, expected, atol=1e-6)


def train(strength, behaviour, steps=2000, count=16):
    """Gradient descent on samples; returns KL(ρ_θ ‖ ρ*) and total variation, mean over prompts."""
    torch.manual_seed(1)
    reference, rewards = problem()
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        log_policy = torch.log_softmax(logits, -1)
        proposal = log_policy if behaviour == "on-policy" else reference
        drawn = torch.multinomial(proposal.exp().detach(), count, replacement=True)
        spread = log_variance(
            log_policy.gather(1, drawn),
            reference.gather(1, drawn),
            rewards.gather(1, drawn),
            strength,
        )
        optimizer.zero_grad()
        (spread.loss / strength**2).backward()
        optimizer.step()
        schedule.step()
    log_policy = torch.log_softmax(logits.detach(), -1)
    best, _ = optimum(reference, rewards, strength)
    divergence = (log_policy.exp() * (log_policy - best)).sum(-1).mean().item()
    variation = (log_policy.exp() - best.exp()).abs().sum(-1).mean().item() / 2
    return divergence, variation


@pytest.mark.parametrize("behaviour", ["on-policy", "off-policy"])
def test_descent_reaches_the_optimum(behaviour):
    divergence, variation = train(1.0, behaviour)
    assert divergence <= 0.01
    assert variation <= 0.05


def test_wrong_arguments_say_what_is_wrong():
    ones = torch.ones(1, 2)
    with pytest.raises(ValueError, match="λ must be above 0"):
        log_variance(ones, ones, ones, strength=0.0)
    with pytest.raises(ValueError, match="needs 2 rewrites"):
        log_variance(ones[:, :1], ones[:, :1], ones[:, :1], strength=1.0)
