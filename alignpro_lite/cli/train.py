"""`alignpro-lite train`: learn a reward model, a prompter against the frozen target, an oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.options import cache_option, require_extra

_EXTRA = ("torch", "transformers", "peft", "accelerate", "pydantic", "tensorboardX", "onnxruntime")


def _run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that both commands share."""
    for option in reversed(
        (
            click.option(
                "--config",
                required=True,
                type=click.Path(path_type=Path, dir_okay=False, exists=True),
                help="What to train; docs/configuration-keys.md lists every key.",
            ),
            click.option(
                "--output",
                "folder",
                required=True,
                type=click.Path(path_type=Path, file_okay=False),
                help="The folder of the run. An unfinished run that lies there is taken up.",
            ),
            click.option(
                "--data",
                type=click.Path(path_type=Path, file_okay=False, exists=True),
                help="What relative data paths start from.  [default: the configuration's folder]",
            ),
            cache_option,
        )
    ):
        command = option(command)
    return command


@click.group()
def train() -> None:
    """Learn a reward model, a prompter against the frozen target, or an oracle beside both.

    Needs the extra: pip install "alignpro-lite[cpu,train]".
    """


@train.command()
@_run_options
def reward(config: Path, folder: Path, data: Path | None, cache: Path | None) -> None:
    """Train a reward model on preference pairs or ratings, and export it.

    Prints the held-out accuracy and calibration. The folder gets the adapter (or
    all weights) with its card, and the reward bundle in `bundle`.
    """
    require_extra("Training", _EXTRA, "train")
    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.reward_config import RewardConfig
    from alignpro_lite.train.reward_run import run_reward

    wanted = read_config(config, RewardConfig)
    base = ModelStore.open(cache).path("reward", wanted.model.base)
    made = run_reward(wanted, base, data or config.parent, folder, output.note)
    click.echo(str(made))


@train.command()
@_run_options
@click.option(
    "--strength",
    type=click.FloatRange(min=0, min_open=True),
    help="λ, instead of objective.strength.",
)
def prompter(
    config: Path, folder: Path, data: Path | None, cache: Path | None, strength: float | None
) -> None:
    """Train a prompter towards ρ* against the frozen target.

    Ctrl-C saves first; the same command goes on from there. At the end the
    prompter is measured on held-out prompts: report.md, report.json. Its adapter
    is for `export prompter --adapter`. Start it with `accelerate launch -m
    alignpro_lite train prompter ...` to use several GPUs or machines.
    """
    require_extra("Training", _EXTRA, "train")
    from accelerate import PartialState

    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.prompter_config import PrompterConfig
    from alignpro_lite.train.prompter_run import train_prompter

    wanted = read_config(config, PrompterConfig)
    if strength is not None:
        objective = wanted.objective.model_copy(update={"strength": strength})
        wanted = wanted.model_copy(update={"objective": objective})
    places = Places(data or config.parent, folder, ModelStore.open(cache))
    if not train_prompter(wanted, places, output.note):
        raise click.Abort
    if PartialState().is_main_process:
        click.echo(str(folder))


@train.command()
@_run_options
def oracle(config: Path, folder: Path, data: Path | None, cache: Path | None) -> None:
    """Align the target itself on a reward, to know what a prompter could reach.

    Same objective as the prompter's, on answers instead of rewrites. Ctrl-C saves
    first; the same command goes on from there. The folder gets the LoRA adapter
    and oracle.gguf, the merged model, for a system of kind oracle of `eval`.
    """
    require_extra("Training", _EXTRA, "train")
    from accelerate import PartialState

    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.train.oracle_config import OracleConfig
    from alignpro_lite.train.oracle_run import ORACLE, train_oracle

    wanted = read_config(config, OracleConfig)
    places = Places(data or config.parent, folder, ModelStore.open(cache))
    if not train_oracle(wanted, places, output.note):
        raise click.Abort
    if PartialState().is_main_process:
        click.echo(str(folder / ORACLE))
