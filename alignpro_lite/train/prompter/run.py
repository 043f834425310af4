"""One prompter run from its configuration to its report, in a folder that can be taken up again."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import torch

from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.eval.arms import Bench
from alignpro_lite.experiment.models import load_prompts, open_target
from alignpro_lite.experiment.prompts import Prompts
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.pretrained.adapter import save_adapter
from alignpro_lite.prompter.card import PrompterCard, write_prompter_card
from alignpro_lite.prompter.template import TEMPLATES
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.train.loop import Learner, PrompterTrainer
from alignpro_lite.train.policy import Policy, open_policy
from alignpro_lite.train.prompter_config import PrompterConfig
from alignpro_lite.train.prompter_report import (
    REPORT,
    REWARD,
    SECOND,
    Report,
    measure,
    summary,
    write_report,
)
from alignpro_lite.train.run import silent, start_run, tell_of_prompts, train_to_the_end

ADAPTER = "adapter"
LEARNED = "learned"
UNTRAINED = "untrained"
_SAMPLED_TOGETHER = 32
"""Rewrites drawn in one batch for the report."""
_SCORED_TOGETHER = 8
"""Rewrites of different prompts scored in one pass; a longer trie costs its length squared."""


def train_prompter(config: PrompterConfig, places: Places, note: Callable[[str], None]) -> bool:
    """Begin a run or take it up, and write its adapter and report when it is done.

    Args:
        config: What to do.
        places: Where.
        note: Told what people who wait should know; main process only.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        AlignProError: Something is missing, damaged, or failed too often.
    """
    accelerator = start_run(places.run, config, config.objective)
    tell = note if accelerator.is_main_process else silent
    if (places.run / REPORT).is_file():
        tell(f"The run in {places.run} is done; its report is report.md there.")
        return True
    with ExitStack() as stack:
        base = places.store.path("prompter", config.prompter.base)
        policy = open_policy(
            config.prompter,
            base,
            TEMPLATES[config.prompter.mode],
            str(accelerator.device),
            config.training.seed,
        )
        prompts = load_prompts(
            config.data, places.data, policy.tokens.request, config.training.seed
        )
        tell_of_prompts(prompts, tell)
        target = stack.enter_context(closing(open_target(config.target, places.store)))
        reward = stack.enter_context(open_reward(config.reward, places.store, usable_cores()))
        learner = Learner(policy, target, reward, config.answers, prompts.train, accelerator)
        trainer = PrompterTrainer(learner, config.objective, config.training, places.run)
        if not train_to_the_end(trainer, places.run, accelerator.is_main_process, tell):
            return False
        if accelerator.is_main_process:
            # First without figures: what fails while measuring must not cost the adapter.
            _write_adapter(config, places.run, policy, {})
            report = _measured(config, places, learner, prompts, stack, tell)
            held = _held_out(config, prompts)
            data = summary(report, held)
            _write_adapter(config, places.run, policy, data["arms"][LEARNED])
            write_report(places.run, data, report, held, LEARNED)
    return True


def _held_out(config: PrompterConfig, prompts: Prompts) -> tuple[str, ...]:
    """The prompts that are measured."""
    return prompts.held_out[: config.report.prompts]


def _measured(
    config: PrompterConfig,
    places: Places,
    learner: Learner,
    prompts: Prompts,
    stack: ExitStack,
    tell: Callable[[str], None],
) -> Report:
    """Answer held-out prompts with and without the prompter."""
    section, seed = config.report, config.training.seed
    held = _held_out(config, prompts)
    rewards = {REWARD: learner.reward}
    if config.second_reward:
        rewards[SECOND] = stack.enter_context(
            open_reward(config.second_reward, places.store, usable_cores())
        )
    plan = config.answers.with_count(section.answers)
    policy, temperature = learner.policy, config.prompter.temperature
    learned = PolicyRewriter(policy, policy.refresh_sampler, temperature)
    untrained = PolicyRewriter(policy, policy.reset_sampler, 1.0)
    return measure(
        Bench(learner.target, rewards, held, plan, seed),
        {LEARNED: learned, UNTRAINED: untrained},
        (UNTRAINED, section.best_of),
        {LEARNED: estimate_kl(policy, held, seed, temperature)},
        lambda arm: tell(f"Measuring on {len(held)} held-out prompts: {arm}."),
    )


class PolicyRewriter:
    """A policy in torch as an arm of a comparison."""

    def __init__(self, policy: Policy, prepare: Callable[[], None], temperature: float) -> None:
        """Take a policy.

        Args:
            policy: What draws.
            prepare: Sets its sampler to ρ_θ or to ρ_sft.
            temperature: Of the draws.
        """
        self._policy = policy
        self._temperature = temperature
        self._prepare = prepare

    def rewrites(self, prompts: Sequence[str], count: int, seed: int) -> list[list[str]]:
        """Draw rewrites; see `Rewriter`."""
        self._prepare()
        policy, template = self._policy, self._policy.tokens.template
        drawn = sample_all(policy, prompts, count, seed, self._temperature)
        return [
            [template.apply(prompt, policy.tokens.decode(output)) for output in outputs]
            for prompt, outputs in zip(prompts, drawn, strict=True)
        ]


def sample_all(
    policy: Policy, prompts: Sequence[str], count: int, seed: int, temperature: float
) -> list[list[tuple[int, ...]]]:
    """Draw rewrites of many prompts, a few prompts at a time."""
    drawn: list[list[tuple[int, ...]]] = []
    together = max(1, _SAMPLED_TOGETHER // count)
    for start in range(0, len(prompts), together):
        some = prompts[start : start + together]
        drawn.extend(policy.sample(some, count, stream_seed(seed, start), temperature))
    return drawn


def estimate_kl(policy: Policy, prompts: Sequence[str], seed: int, temperature: float) -> float:
    """KL of ρ_θ at a temperature to ρ_sft, in nats: the mean log-ratio of a rewrite a prompt."""
    policy.refresh_sampler()
    fresh = sample_all(policy, prompts, 1, stream_seed(seed, 2), temperature)
    drawn = [outputs[0] for outputs in fresh]
    ratios: list[float] = []
    for start in range(0, len(prompts), _SCORED_TOGETHER):
        end = start + _SCORED_TOGETHER
        trie = policy.pack(prompts[start:end], drawn[start:end])
        with torch.no_grad():
            drawn_with = policy.log_probs(trie, temperature)
            ratios.extend((drawn_with - policy.reference_log_probs(trie)).tolist())
    return math.fsum(ratios) / len(ratios)


def _write_adapter(
    config: PrompterConfig, run: Path, policy: Policy, figures: dict[str, Any]
) -> None:
    """Write the adapter in peft's form at half precision, with the card that the export reads."""
    folder = run / ADAPTER
    save_adapter(policy.model, config.prompter.base, folder)
    card = PrompterCard(
        base=config.prompter.base,
        template=policy.tokens.template,
        strength=config.objective.strength,
        reward=" + ".join(
            f"{weight:g} {name}" for one in config.reward for name, weight in one.weights.items()
        ),
        sampling=Sampling(temperature=config.prompter.temperature),
        max_tokens=config.prompter.max_tokens,
        metrics=figures,
    )
    write_prompter_card(folder, card)
