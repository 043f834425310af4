"""`alignpro-lite train`: a reward model, a reference, a prompter for the target, or an oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.extras import require_extra
from alignpro_lite.cli.options import add_options, cache_option, data_option


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that all training commands share."""
    config = click.option(
        "--config",
        required=True,
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="What to train; docs/configuration-keys.md lists all keys.",
    )
    folder = click.option(
        "--output",
        "folder",
        required=True,
        type=click.Path(path_type=Path, file_okay=False),
        help="The folder of the run. An unfinished run in it is resumed.",
    )
    return add_options(command, (config, folder, data_option, cache_option))


@click.group()
def train() -> None:
    """Train a reward model, a reference prompter, a prompter for the frozen target, or an oracle.

    Needs the extra: pip install "alignpro-lite[cpu,train]".
    """


@train.command("reward")
@_run_options
def learn_reward(config: Path, folder: Path, data: Path | None, cache: Path | None) -> None:
    """Train a reward model on preference pairs or ratings, and export it.

    Prints the held-out accuracy and calibration. The folder gets the adapter (or
    all weights) with its card, and a reward bundle in `bundle`.
    """
    require_extra("train")
    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.reward.config import RewardConfig
    from alignpro_lite.train.reward.run import train_reward

    wanted = read_config(config, RewardConfig)
    places = Places(data or config.parent, folder, ModelStore.open(cache))
    click.echo(str(train_reward(wanted, places, output.note)))


@train.command("reference")
@_run_options
def learn_reference(config: Path, folder: Path, data: Path | None, cache: Path | None) -> None:
    """Teach a base model to write hints, from pairs of a prompt and its hint.

    The result is ρ_sft, from which `train prompter` goes on, or a prompter of its own.
    Ctrl-C saves the run; the same command resumes it. The folder gets the adapter
    with its card, and hints.md: figures and hints for prompts it never saw.
    """
    require_extra("train")
    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.reference.config import ReferenceConfig
    from alignpro_lite.train.reference.run import train_reference

    wanted = read_config(config, ReferenceConfig)
    places = Places(data or config.parent, folder, ModelStore.open(cache))
    if not train_reference(wanted, places, output.note):
        raise click.Abort
    click.echo(str(folder))


@train.command("prompter")
@_run_options
@click.option(
    "--strength",
    type=click.FloatRange(min=0, min_open=True),
    help="λ, instead of objective.strength.",
)
def learn_prompter(
    config: Path, folder: Path, data: Path | None, cache: Path | None, strength: float | None
) -> None:
    """Train a prompter towards ρ* against the frozen target.

    Ctrl-C saves the run; the same command resumes it. At the end the prompter is
    measured on held-out prompts, see report.md and summary.json. Pass its adapter to
    `export prompter --adapter`. To use several GPUs or machines, start it with
    `accelerate launch -m alignpro_lite train prompter ...`.
    """
    require_extra("train")
    from accelerate import PartialState
    from msgspec.structs import replace

    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.prompter.config import PrompterConfig
    from alignpro_lite.train.prompter.run import train_prompter

    wanted = read_config(config, PrompterConfig)
    if strength is not None:
        wanted = replace(wanted, objective=replace(wanted.objective, strength=strength))
    places = Places(data or config.parent, folder, ModelStore.open(cache))
    if not train_prompter(wanted, places, output.note):
        raise click.Abort
    if PartialState().is_main_process:
        click.echo(str(folder))


@train.command("strength")
@click.option(
    "--config",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The prompter.toml of the run that λ is for.",
)
@data_option
@cache_option
@click.option(
    "--nats",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How far ρ* may be from the untrained prompter: KL in nats.",
)
@click.option(
    "--prompts",
    type=click.IntRange(min=2),
    default=32,
    show_default=True,
    help="Training prompts to measure on.",
)
@click.option(
    "--rewrites",
    type=click.IntRange(min=2),
    default=4,
    show_default=True,
    help="Rewrites of each.",
)
@click.option(
    "--answers",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Answers by which each rewrite is measured, twice.",
)
def find_strength(
    config: Path,
    data: Path | None,
    cache: Path | None,
    nats: float,
    prompts: int,
    rewrites: int,
    answers: int,
) -> None:
    """Print the λ that follows from how far rewards spread over rewrites.

    The untrained prompter rewrites some training prompts, and each rewrite is
    measured twice by answers of its own. What both measurements share is no noise.
    Pass the result to `train prompter --strength`.
    """
    require_extra("train")
    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.prompter.config import PrompterConfig
    from alignpro_lite.train.prompter.strength import Pilot, measure_strength

    wanted = read_config(config, PrompterConfig)
    folder = data or config.parent
    places = Places(folder, folder, ModelStore.open(cache))
    found = measure_strength(wanted, places, Pilot(nats, prompts, rewrites, answers), output.note)
    click.echo(f"{found:.3g}")


@train.command("oracle")
@_run_options
def learn_oracle(config: Path, folder: Path, data: Path | None, cache: Path | None) -> None:
    """Train the target itself on a reward, to see what a prompter could reach.

    The objective is the prompter's, on answers instead of rewrites. Ctrl-C saves the
    run; the same command resumes it. The folder gets the LoRA adapter and
    oracle.gguf, the merged model, which `eval` takes as a system of kind oracle.
    """
    require_extra("train")
    from accelerate import PartialState

    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.oracle.config import OracleConfig
    from alignpro_lite.train.oracle.run import ORACLE, train_oracle

    wanted = read_config(config, OracleConfig)
    places = Places(data or config.parent, folder, ModelStore.open(cache))
    if not train_oracle(wanted, places, output.note):
        raise click.Abort
    if PartialState().is_main_process:
        click.echo(str(folder / ORACLE))
