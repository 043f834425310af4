"""What every run against a reward shares: its folder, its processes, and its progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.errors import InputError, TrainingError
from alignpro_lite.experiment.models import load_prompts
from alignpro_lite.experiment.prompts import Prompts, prompt_position
from alignpro_lite.experiment.run_folder import Places, claim, sole_run
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.reward.rivals import rival_source
from alignpro_lite.target.rollout import AnswerPlan, Target, chooser_of
from alignpro_lite.train.allocator import keep_freed_memory
from alignpro_lite.train.loop import PolicyTrainer
from alignpro_lite.train.metrics import Metrics
from alignpro_lite.train.oracle.config import OracleConfig, StoppingSection
from alignpro_lite.train.plateau import Watch
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import PrompterConfig, ScalingSection
from alignpro_lite.train.rollout import Learner
from alignpro_lite.train.scaling import RewardScales, measure_scales, remembered_scales

_SCALES_SEED = 2**31 + 1
"""Number of the random stream of the answers that rewards are scaled by; no step has it."""


@dataclass(frozen=True)
class PolicyTask:
    """What differs between runs against a reward.

    Attributes:
        result: The file of the run folder that marks a run that is done.
        load_policy: Gives what is trained, on a device.
        open_targets: Each opens a target that answers; they are closed in the end.
        plan: How they are asked.
        sampling: How the policy is drawn from in training.
        stopping: When training ends before its last step; None for never.
        watched: Outputs drawn for each prompt that decides about that.
        scaling: What the parts of the reward are divided by; None for nothing.
        finish: Writes the result, in the main process, from what was trained and the prompts.
    """

    result: str
    load_policy: Callable[[str], Policy]
    open_targets: tuple[Callable[[], Target], ...]
    plan: AnswerPlan
    sampling: Sampling
    stopping: StoppingSection | None
    watched: int
    scaling: ScalingSection | None
    finish: Callable[[PolicyTrainer, Learner, Prompts], None]


def train_policy(
    config: PrompterConfig | OracleConfig,
    places: Places,
    note: Callable[[str], None],
    task: PolicyTask,
) -> bool:
    """Start a run or resume it, until its result is written.

    Args:
        config: What to train.
        places: Where things are.
        note: Called with each progress message, by the main process only.
        task: What kind of run it is.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        TrainingError: The prompts of a step cannot be shared evenly.
        InputError: The folder belongs to a run with another configuration.
        AlignProError: Something is missing, damaged, or failed too often.
    """
    keep_freed_memory()
    # Without `cpu`, processes that a launcher starts on a CPU do not find each other.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    _require_even_share(config.objective.prompts, accelerator.num_processes)
    is_main = accelerator.is_main_process
    note = note if is_main else _stay_silent
    if is_main:
        claim(places.run, config)
    accelerator.wait_for_everyone()
    if (places.run / task.result).is_file():
        note(f"The run in {places.run} is done; its result is {task.result} there.")
        return True
    with ExitStack() as stack:
        if is_main:
            stack.enter_context(sole_run(places.run))
        policy = task.load_policy(str(accelerator.device))
        seed = config.training.seed
        prompts = load_prompts(config.data, places.data, policy.tokens.request, seed, note)
        trained, watch = _set_apart(prompts.train, task)
        opened = tuple(stack.enter_context(closing(load())) for load in task.open_targets)
        reward = stack.enter_context(
            open_reward(
                config.reward,
                places.store,
                usable_cores(),
                prompts.references,
                chooser_of(opened[0]),
            )
        )
        rivals = tuple(rival_source(reward.rivals, each, task.plan, seed) for each in opened)
        learner = Learner(
            policy=policy,
            targets=opened,
            reward=reward,
            plan=task.plan,
            sampling=task.sampling,
            prompts=trained,
            accelerator=accelerator,
            rivals=rivals,
            references=prompts.references,
        )
        if task.scaling is not None and task.scaling.by == "spread":
            measure = partial(scales_of, config, task.scaling, learner)
            with accelerator.main_process_first():  # measured once, and read by all
                scales = remembered_scales(places.run, measure)
            note(scales.note())
            learner = replace(learner, reward=reward.weighted(scales.weights))
        trainer = PolicyTrainer(learner, config.objective, config.training, places.run, watch)
        done = _train_to_the_end(trainer, places.run) if is_main else trainer.train(_stay_silent)
        if not done:
            note(f"Stopped and saved at step {trainer.step}; the same command resumes there.")
        elif is_main:
            task.finish(trainer, learner, prompts)
    return done


def scales_of(
    config: PrompterConfig | OracleConfig, section: ScalingSection, learner: Learner
) -> RewardScales:
    """Measure what a run divides its rewards by.

    Args:
        config: Of the run.
        section: How much is measured.
        learner: Its prompts are all that the run is trained on.

    Raises:
        TrainingError: A part gives all answers to a prompt the same score.
        AlignProError: The target or the reward failed altogether.
    """
    checked = [
        name for source in config.reward if source.kind == "check" for name in source.weights
    ]
    known = [prompt for prompt in learner.prompts if prompt in learner.references]
    some = learner.prompts[: section.prompts]
    both = dict.fromkeys([*some, *(known[: section.prompts] if checked else ())])
    return measure_scales(
        learner.reward,
        learner.target,
        learner.plan.with_count(section.answers),
        list(both),
        dict.fromkeys(checked, known),
        stream_seed(config.training.seed, _SCALES_SEED),
        partial(learner.rivals_of, 0),
    )


def _set_apart(train: tuple[str, ...], task: PolicyTask) -> tuple[tuple[str, ...], Watch | None]:
    """Split off the prompts that decide when to stop: those next to the held-out ones by hash.

    Raises:
        InputError: Nothing is left to train on.
    """
    if task.stopping is None:
        return train, None
    apart = sorted(train, key=prompt_position)[: task.stopping.prompts]
    trained = tuple(prompt for prompt in train if prompt not in set(apart))
    if not trained:
        raise InputError(
            f"Prompts are needed to train on besides the {task.stopping.prompts} that are set "
            f"apart, found {len(train)} in all.",
            "Add data, or lower stopping.prompts.",
        )
    return trained, Watch(tuple(apart), task.watched, task.stopping.patience)


def _require_even_share(prompts: int, processes: int) -> None:
    if prompts % processes:
        raise TrainingError(
            f"objective.prompts must be a multiple of the {processes} processes, found {prompts}.",
            f"Set objective.prompts to {processes * math.ceil(prompts / processes)}.",
        )


def _stay_silent(*said: object) -> None:
    """Discard messages, in processes other than the main one."""


def _train_to_the_end(trainer: PolicyTrainer, run: Path) -> bool:
    """Train, with metrics and a progress bar; whether the last step was reached."""
    with (
        closing(Metrics(run, trainer.step)) as metrics,
        tqdm(total=trainer.steps, initial=trainer.step, unit="step", smoothing=0.1) as bar,
    ):

        def on_step(values: Mapping[str, float], reasons: Sequence[str]) -> None:
            metrics.write(trainer.step, values)
            bar.set_postfix_str(_shown(values), refresh=False)
            bar.update()
            for reason in dict.fromkeys(reasons):
                bar.write(f"step {trainer.step}: {reason}")

        return trainer.train(on_step)


def _shown(values: Mapping[str, float]) -> str:
    names = {"reward": "reward", "kl": "KL", "residual": "residual", "calls": "calls"}
    return ", ".join(
        f"{label} {values[name]:.0f}" if name == "calls" else f"{label} {values[name]:.3f}"
        for name, label in names.items()
        if name in values
    )
