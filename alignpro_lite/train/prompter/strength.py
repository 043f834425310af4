"""λ from how far rewards spread over the rewrites of ρ_sft, measured before a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.experiment.models import load_prompts, open_target
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.measure.spread import spread_between, strength_for
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.reward.rivals import rival_source
from alignpro_lite.target.rollout import chooser_of
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import PrompterConfig
from alignpro_lite.train.prompter.run import reference_adapter, template_of
from alignpro_lite.train.rollout import Learner, measured_twice
from alignpro_lite.train.run import scales_of


@dataclass(frozen=True)
class Pilot:
    """What is measured.

    Attributes:
        nats: KL(ρ*‖ρ_sft) that λ is to allow.
        prompts: Training prompts.
        rewrites: Of each, by ρ_sft.
        answers: By which each rewrite is measured, twice.
    """

    nats: float
    prompts: int
    rewrites: int
    answers: int


def measure_strength(
    config: PrompterConfig, places: Places, pilot: Pilot, note: Callable[[str], None]
) -> float:
    """Measure the spread of R over rewrites of ρ_sft, and give the λ that follows from it.

    R is in the unit of the run: of several rewards, each part is divided by what the run divides it
    by.

    Args:
        config: Of the run that λ is for; its own λ has no part in this.
        places: Where its data and models are; nothing is written.
        pilot: What is measured.
        note: Called with each progress message.

    Raises:
        InputError: There is no spread beyond the noise.
        AlignProError: Something is missing or damaged, or nothing could be answered or scored.
    """
    base, seed = places.store.path("prompter", config.prompter.base), config.training.seed
    template = template_of(config.prompter, places.data)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    device = str(accelerator.device)
    reference = reference_adapter(config.prompter, places.data)
    policy = Policy(
        base, template, config.prompter, config.prompter.max_tokens, device, seed, reference
    )
    prompts = load_prompts(config.data, places.data, policy.tokens.request, seed, note)
    some = prompts.train[: pilot.prompts]
    with ExitStack() as stack:
        targets = tuple(
            stack.enter_context(closing(open_target(section, places.store)))
            for section in config.targets
        )
        known, judging = prompts.references, chooser_of(targets[0])
        reward = stack.enter_context(
            open_reward(config.reward, places.store, usable_cores(), known, judging)
        )
        plan = config.answers.with_count(pilot.answers)
        rivals = tuple(rival_source(reward.rivals, each, plan, seed) for each in targets)
        learner = Learner(
            policy, targets, reward, plan, Sampling(), prompts.train, accelerator, rivals, known
        )
        if config.scaling is not None and config.scaling.by == "spread":
            scales = scales_of(config, config.scaling, learner)
            note(scales.note())
            learner = replace(learner, reward=reward.weighted(scales.weights))
        first, second = measured_twice(learner, some, pilot.rewrites, seed)
    spread = spread_between(first, second, seed)
    noise = math.sqrt(float((first - second).var()) / 2 * pilot.answers)
    note(
        f"R spreads by {spread.value:.4f} ({spread.low:.4f} to {spread.high:.4f}) over the "
        f"rewrites of a prompt, an answer by about {noise:.4f} around R, from "
        f"{2 * first.size * pilot.answers} answers to {first.size} rewrites."
    )
    return strength_for(spread.value, pilot.nats)
