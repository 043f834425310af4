"""`alignpro-lite eval`: how much better the answers of each system are, and the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.extras import require_extra
from alignpro_lite.cli.options import cache_option, data_option

if TYPE_CHECKING:
    from alignpro_lite.eval.config import EvalConfig
    from alignpro_lite.experiment.run_folder import Places

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="What to compare; docs/configuration-keys.md lists all keys.",
)

models_option = click.option(
    "--models",
    "preset",
    default="default",
    show_default=True,
    metavar="NAME",
    help="The preset of models.toml whose models the name `default` stands for in a configuration.",
)


def output_option(folder: str) -> Callable[[Any], Any]:
    """The option for the folder of an evaluation."""
    return click.option(
        "--output",
        "folder",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(folder),
        show_default=True,
        help="The folder of the evaluation. An unfinished one in it is resumed.",
    )


@click.group("eval", invoke_without_command=True)
@config_option
@data_option
@output_option("evaluation")
@models_option
@cache_option
@click.pass_context
def evaluation(
    context: click.Context,
    config: Path | None,
    data: Path | None,
    folder: Path,
    preset: str,
    cache: Path | None,
) -> None:
    """Compare ways to get answers from your own models, and write a report.

    Every system of --config answers every prompt. The folder gets report.html,
    summary.md, the figures and results.jsonl. Ctrl-C loses nothing: the same
    command resumes. Needs the extra: pip install "alignpro-lite[cpu,eval]".
    """
    if context.invoked_subcommand is not None:
        _refuse_lost_options(context)
        return
    if config is None:
        raise click.UsageError("Missing option '--config', or the command 'quick'.")
    _evaluate(config, data or config.parent, folder, cache, preset)


def _refuse_lost_options(context: click.Context) -> None:
    """The group's options have no effect on its commands, which have their own."""
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "")
        if given is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"Options go after the command: eval {context.invoked_subcommand} "
                f"{option.opts[0]} ..."
            )


@evaluation.command("quick")
@output_option("evaluation-quick")
@models_option
@cache_option
def eval_quick(folder: Path, preset: str, cache: Path | None) -> None:
    """Evaluate the default bundle, or that of --models, on 16 prompts of the package."""
    require_extra("eval")
    from alignpro_lite.eval import QUICK

    _evaluate(QUICK / "eval.toml", QUICK, folder, cache, preset)


@evaluation.command("bound")
@config_option
@data_option
@output_option("evaluation")
@models_option
@cache_option
def eval_bound(
    config: Path | None, data: Path | None, folder: Path, preset: str, cache: Path | None
) -> None:
    """Measure the terms of theorem 6.1: how far ρ* may be from the best target.

    Reads the section [bound] of --config. The term of the best target needs a
    system of kind oracle; without one it is left open.
    """
    if config is None:
        raise click.UsageError("Missing option '--config'.")
    wanted, places = _read_evaluation(config, data or config.parent, folder, cache, preset)
    from alignpro_lite.eval.bound import evaluate_bound

    click.echo(evaluate_bound(wanted, places, output.note))


def _evaluate(config: Path, data: Path, folder: Path, cache: Path | None, preset: str) -> None:
    wanted, places = _read_evaluation(config, data, folder, cache, preset)
    from alignpro_lite.eval.evaluate import PAGE, TEXT, evaluate

    evaluate(wanted, places, output.note)
    click.echo((folder / TEXT).read_text(encoding="utf-8"))
    output.note(f"The report is {folder / PAGE}.")


def _read_evaluation(
    config: Path, data: Path, folder: Path, cache: Path | None, preset: str
) -> tuple[EvalConfig, Places]:
    require_extra("eval")
    from alignpro_lite.eval.config import EvalConfig
    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore

    places = Places(data, folder, ModelStore.open(cache, preset))
    return read_config(config, EvalConfig), places
