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
@cache_option
@click.pass_context
def evaluation(
    context: click.Context, config: Path | None, data: Path | None, folder: Path, cache: Path | None
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
    _evaluate(config, data or config.parent, folder, cache)


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
@cache_option
def eval_quick(folder: Path, cache: Path | None) -> None:
    """Evaluate the default bundle on 16 prompts that come with the package."""
    require_extra("eval")
    from alignpro_lite.eval import QUICK

    _evaluate(QUICK / "eval.toml", QUICK, folder, cache)


@evaluation.command("bound")
@config_option
@data_option
@output_option("evaluation")
@cache_option
def eval_bound(config: Path | None, data: Path | None, folder: Path, cache: Path | None) -> None:
    """Measure the terms of theorem 6.1: how far ρ* may be from the best target.

    Reads the section [bound] of --config. The term of the best target needs a
    system of kind oracle; without one it is left open.
    """
    if config is None:
        raise click.UsageError("Missing option '--config'.")
    wanted, places = _read_evaluation(config, data or config.parent, folder, cache)
    from alignpro_lite.eval.bound import evaluate_bound

    click.echo(evaluate_bound(wanted, places, output.note))


@evaluation.command("pairs")
@click.argument("data", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(["hh", "bpo", "ultrafeedback", "orca", "jsonl"]),
    default="jsonl",
    show_default=True,
    help="How DATA is written; jsonl has rows of prompt, chosen and rejected.",
)
@click.option(
    "--reward",
    default="judge:target",
    show_default=True,
    metavar="BUNDLE|NAME|module:function|judge:NAME",
    help="What is measured, named as for `run`.",
)
@click.option(
    "--target",
    "-t",
    default="default",
    metavar="GGUF|NAME|hf:...",
    help="The model behind judge:target.",
)
@click.option("--rows", type=click.IntRange(min=1), help="Only the first pairs.  [default: all]")
@click.option(
    "--labels",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the preferences as the judge has them, with margins, for `train reward`.",
)
@output_option("evaluation-pairs")
@cache_option
def eval_pairs(
    data: Path,
    form: Any,
    reward: str,
    target: str,
    rows: int | None,
    labels: Path | None,
    folder: Path,
    cache: Path | None,
) -> None:
    """Measure how often a reward or a judge is right about the pairs of DATA.

    The preferred answer of each pair is known. A judge is shown both answers in
    both orders, together; beside it stands the rule of always preferring the
    longer answer. Every verdict is kept: the same command resumes.
    """
    require_extra("eval")
    from alignpro_lite.eval.pairs import PairsPlan, judge_preferences, write_labels
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.reward.judge import AnswerPair
    from alignpro_lite.train.reward.preferences import read_preferences

    found, bad = read_preferences(data, form)
    for row in bad:
        output.note(f"{data}: {row}")
    pairs = [AnswerPair(row.prompt, *row.answers) for row in found[:rows]]
    places = Places(data.parent, folder, ModelStore.open(cache))
    plan = PairsPlan(str(data), reward, target, rows)
    summary, verdicts = judge_preferences(pairs, plan, places, output.note)
    click.echo(str(summary))
    if labels is not None:
        output.note(f"{labels} has {write_labels(labels, pairs, verdicts)} preferences.")


def _evaluate(config: Path, data: Path, folder: Path, cache: Path | None) -> None:
    wanted, places = _read_evaluation(config, data, folder, cache)
    from alignpro_lite.eval.evaluate import PAGE, TEXT, evaluate

    evaluate(wanted, places, output.note)
    click.echo((folder / TEXT).read_text(encoding="utf-8"))
    output.note(f"The report is {folder / PAGE}.")


def _read_evaluation(
    config: Path, data: Path, folder: Path, cache: Path | None
) -> tuple[EvalConfig, Places]:
    require_extra("eval")
    from alignpro_lite.eval.config import EvalConfig
    from alignpro_lite.experiment.config import read_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore

    places = Places(data, folder, ModelStore.open(cache))
    return read_config(config, EvalConfig), places
