"""Training against the closed form of Lemma 5.1, on a space that can be enumerated."""

from __future__ import annotations

import math

import pytest
import torch

from alignpro_lite.train.objective import log_variance
from tests.support.toy_problem import (
    PROMPTS,
    REWRITES,
    Problem,
    TablePolicy,
    divergence,
    draw,
    variation,
)

STRENGTHS = (0.5, 1.0, 2.0)
"""λ; R has a standard deviation of 1 over the rewrites."""
NOISE = 0.5
"""Standard deviation of one answer's reward around R(x, x')."""


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(strength):
    """The problem, a policy that equals ρ_sft, and the generator of all that follows."""
    generator = torch.Generator().manual_seed(0)
    policy = TablePolicy(0.5, generator)
    rewards = torch.randn(PROMPTS, REWRITES, generator=generator)
    return Problem(rewards, policy().detach(), strength), policy, generator


class Descent:
    """Adam on the log-variance loss, its step falling to zero."""

    def __init__(self, problem, policy, steps):
        self.problem, self.policy = problem, policy
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
        self.decay = torch.optim.lr_scheduler.LinearLR(self.optimizer, 1.0, 0.0, steps)

    def step(self, drawn, rewards):
        log_policy = self.policy().gather(1, drawn)
        log_reference = self.problem.log_reference.gather(1, drawn)
        spread = log_variance(log_policy, log_reference, rewards, self.problem.strength)
        self.optimizer.zero_grad()
        (spread.loss / self.problem.strength**2).backward()
        self.optimizer.step()
        self.decay.step()


def train_exact(problem, policy, generator, on_policy, steps=2000, count=64):
    """Fresh rewrites with their exact R in every step."""
    descent = Descent(problem, policy, steps)
    for _ in range(steps):
        drawn = draw(policy() if on_policy else problem.log_reference, count, generator)
        descent.step(drawn, problem.rewards.gather(1, drawn))


def train_noisy(problem, policy, generator, calls, rounds=40, replays=20, count=1024):
    """One noisy reward a rewrite (M = 1); every step replays what all earlier rounds paid for."""
    descent = Descent(problem, policy, rounds * replays)
    drawn, rewards = torch.empty(PROMPTS, 0, dtype=torch.long), torch.empty(PROMPTS, 0)
    for _ in range(rounds):
        fresh = draw(policy(), calls // rounds, generator)
        noise = NOISE * torch.randn(fresh.shape, generator=generator)
        drawn = torch.cat([drawn, fresh], 1)
        rewards = torch.cat([rewards, problem.rewards.gather(1, fresh) + noise], 1)
        for _ in range(replays):
            picked = torch.randint(drawn.shape[1], (PROMPTS, count), generator=generator)
            descent.step(drawn.gather(1, picked), rewards.gather(1, picked))


def assert_reached(problem, policy):
    """KL within 0.01 nats and total variation within 0.02, at every prompt."""
    log_policy = policy().detach()
    assert divergence(log_policy, problem.log_optimum).max() <= 0.01
    assert variation(log_policy, problem.log_optimum).max() <= 0.02


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("on_policy", [True, False], ids=["on-policy", "off-policy"])
def test_exact_rewards_reach_the_optimum(strength, on_policy):
    problem, policy, generator = start(strength)
    assert variation(policy(), problem.log_optimum).min() > 0.1
    train_exact(problem, policy, generator, on_policy)
    assert_reached(problem, policy)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_one_noisy_reward_a_rewrite_reaches_the_optimum(strength):
    # Least squares on n rewards leaves an error of variance (REWRITES - 1) / n (NOISE / λ)² in
    # log ρ, and half its mean absolute value in total variation: what n has to be for 0.013.
    error = 2 * 0.013 * math.sqrt(math.pi / 2)
    calls = round((REWRITES - 1) * (NOISE / strength / error) ** 2)
    problem, policy, generator = start(strength)
    train_noisy(problem, policy, generator, calls)
    assert_reached(problem, policy)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_closed_form_identities(strength):
    problem, policy, _ = start(strength)
    best, log_z = problem.log_optimum, problem.log_z
    assert torch.allclose(best.exp().sum(-1), torch.ones(PROMPTS))
    expected = (best.exp() * problem.rewards).sum(-1)
    assert torch.allclose(
        divergence(best, problem.log_reference), expected / strength - log_z, atol=1e-5
    )
    assert torch.allclose(problem.value(best), strength * log_z, atol=1e-5)
    short = strength * divergence(policy().detach(), best)
    assert torch.allclose(problem.value(policy().detach()), strength * log_z - short, atol=1e-5)
