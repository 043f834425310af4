"""`alignpro-lite eval`: how much better the answers of each system are, and the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.extras import require_extra
from alignpro_lite.cli.options import (
    cache_option,
    data_option,
    grouped,
    prompter_option,
    target_option,
)

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


@dataclass(frozen=True)
class HeadroomInput:
    """What `eval headroom` is tried on: a file of prompts, or what a configuration names."""

    prompts: Path | None
    config: Path | None
    data: Path | None


@dataclass(frozen=True)
class HeadroomModels:
    """What prompts without a configuration are tried with."""

    preset: str
    target: str
    prompter: str
    reward: str
    max_tokens: int


headroom_input = grouped(
    "source",
    HeadroomInput,
    click.option(
        "--prompts",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help='A file of your prompts, such as lines {"prompt": "..."}.',
    ),
    config_option,
    data_option,
)
headroom_models = grouped(
    "models",
    HeadroomModels,
    models_option,
    target_option,
    prompter_option,
    click.option(
        "--reward",
        default="default",
        metavar="BUNDLE|NAME|MODULE:FUNCTION",
        help="What scores the answers, as for run.",
    ),
    click.option(
        "--max-tokens",
        type=click.IntRange(min=1),
        default=128,
        show_default=True,
        help="The most tokens of an answer.",
    ),
)


@evaluation.command("headroom")
@headroom_input
@headroom_models
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    help="Time for rewrites and answers, in all runs into this folder together.",
)
@click.option(
    "--calls", type=click.IntRange(min=1), help="Answers of the target, instead of --minutes."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
@output_option("headroom")
@cache_option
def eval_headroom(
    source: HeadroomInput,
    models: HeadroomModels,
    minutes: float,
    calls: int | None,
    as_json: bool,
    folder: Path,
    cache: Path | None,
) -> None:
    """Can rewriting pay on your target and your prompts at all?

    Tries constant hints and a prompter's rewrites on --prompts, or on the prompts
    and models of --config. Says what the best constant hint is worth, what a
    choice for each prompt would add, what of it is luck, and how many answers
    would tell more. The folder gets headroom.html, headroom.md and headroom.json.
    The same command resumes, and one with more --minutes or --calls continues.
    """
    wanted, places = _read_headroom(source, models, folder, cache)
    from alignpro_lite.eval.design import HeadroomBudget
    from alignpro_lite.eval.headroom import HEADROOM_PAGE, evaluate_headroom
    from alignpro_lite.eval.report.headroom import headroom_text

    budget = HeadroomBudget(None if calls else 60 * minutes, calls)
    report = evaluate_headroom(wanted, budget, places, output.note)
    found = json.dumps(report.as_json(), ensure_ascii=False)
    click.echo(found if as_json else headroom_text(report))
    output.note(f"The report is {folder / HEADROOM_PAGE}.")


def _read_headroom(
    source: HeadroomInput, models: HeadroomModels, folder: Path, cache: Path | None
) -> tuple[EvalConfig, Places]:
    if source.prompts is None:
        if source.config is None:
            raise click.UsageError("Missing option '--prompts' or '--config'.")
        named = {field.name for field in fields(HeadroomModels)} - {"preset"}
        _refuse_beside_config(*named)
        data = source.data or source.config.parent
        return _read_evaluation(source.config, data, folder, cache, models.preset)
    if source.config or source.data:
        raise click.UsageError("--prompts goes without --config and --data.")
    require_extra("eval")
    from alignpro_lite.eval.headroom import headroom_config
    from alignpro_lite.experiment.run_folder import Places
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.target.rollout import AnswerPlan

    store = ModelStore.open(cache, models.preset)
    names = {"target": models.target, "prompter": models.prompter, "reward": models.reward}
    plan = AnswerPlan(count=2, max_tokens=models.max_tokens)
    config = headroom_config(source.prompts, names, plan, store)
    return config, Places(source.prompts.parent, folder, store)


def _refuse_beside_config(*names: str) -> None:
    """Options whose place is taken by the configuration."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "")
        if option.name in names and given is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option.opts[0]} goes with --prompts; --config names it.")


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
