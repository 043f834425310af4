"""What every run against a reward shares: its folder, its processes, and its progress bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from alignpro_lite.errors import TrainingError
from alignpro_lite.experiment.prompts import Prompts
from alignpro_lite.experiment.rows import described
from alignpro_lite.experiment.run_folder import claim
from alignpro_lite.registry.record import Record
from alignpro_lite.train.allocator import keep_freed_memory
from alignpro_lite.train.loop import PolicyTrainer, StepReport
from alignpro_lite.train.metrics import Metrics
from alignpro_lite.train.prompter.config import ObjectiveSection


def start_run(run: Path, config: Record, objective: ObjectiveSection) -> Accelerator:
    """Find the other processes of a run, and claim its folder.

    Raises:
        TrainingError: The prompts of a step cannot be shared evenly.
        InputError: The folder belongs to a run with another configuration.
    """
    keep_freed_memory()
    # Without `cpu`, processes that a launcher starts on a CPU do not find each other.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    _require_even_share(objective.prompts, accelerator.num_processes)
    if accelerator.is_main_process:
        claim(run, config)
    accelerator.wait_for_everyone()
    return accelerator


def _require_even_share(prompts: int, processes: int) -> None:
    if prompts % processes:
        raise TrainingError(
            f"objective.prompts must be a multiple of the {processes} processes, found {prompts}.",
            f"Set objective.prompts to {processes * math.ceil(prompts / processes)}.",
        )


def stay_silent(text: str) -> None:
    """What processes other than the main one say."""


def describe_prompts(prompts: Prompts, tell: Callable[[str], None]) -> None:
    """Say how many prompts there are, and which rows were left out."""
    for line in described(prompts.bad):
        tell(line)
    tell(
        f"{len(prompts.train)} prompts to train on, {len(prompts.held_out)} held out, "
        f"{prompts.too_long} too long."
    )


def train_to_the_end(
    trainer: PolicyTrainer, run: Path, is_main: bool, tell: Callable[[str], None]
) -> bool:
    """Train, with metrics and a progress bar in the main process.

    Returns:
        Whether the last step was reached; False after Ctrl-C, with everything saved.
    """
    if not is_main:
        return trainer.train(lambda report: None)
    with (
        closing(Metrics(run, trainer.step)) as metrics,
        tqdm(total=trainer.steps, initial=trainer.step, unit="step", smoothing=0.1) as bar,
    ):

        def on_step(report: StepReport) -> None:
            metrics.write(report.step, report.values)
            bar.set_postfix_str(_shown(report.values), refresh=False)
            bar.update()
            for reason in dict.fromkeys(report.reasons):
                bar.write(f"step {report.step}: {reason}")

        done = trainer.train(on_step)
    if not done:
        tell(f"Stopped and saved at step {trainer.step}; the same command resumes there.")
    return done


def _shown(values: Mapping[str, float]) -> str:
    names = {"reward": "reward", "kl": "KL", "residual": "residual", "calls": "calls"}
    return ", ".join(
        f"{label} {values[name]:.0f}" if name == "calls" else f"{label} {values[name]:.3f}"
        for name, label in names.items()
        if name in values
    )
