"""One evaluation from its configuration to its report, in a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.bench import System
from alignpro_lite.eval.config import EvalConfig, RhoStarSection
from alignpro_lite.eval.constant import ConstantHint, choose_constant
from alignpro_lite.eval.constraints import constraint_accuracies
from alignpro_lite.eval.dial import dial_curves
from alignpro_lite.eval.evaluation import Evaluation, open_evaluation
from alignpro_lite.eval.frontier import FRONTIER, answer_pools
from alignpro_lite.eval.judges import judge_accuracies
from alignpro_lite.eval.leaks import leak_notes
from alignpro_lite.eval.loaded import open_system
from alignpro_lite.eval.oracle import oracle_note, read_oracle_card
from alignpro_lite.eval.pair_judge import pair_notes
from alignpro_lite.eval.records import RESULTS, ResultRow
from alignpro_lite.eval.report.figures import write_figures
from alignpro_lite.eval.report.markdown import as_markdown
from alignpro_lite.eval.report.page import as_page
from alignpro_lite.eval.runner import answer_all
from alignpro_lite.eval.summary import DialCurve, Summary, write_summary
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.registry.record import plain
from alignpro_lite.registry.storage import write_text

PAGE = "report.html"
TEXT = "summary.md"
FIGURES = "figures"


def evaluate(config: EvalConfig, places: Places, note: Callable[[str], None]) -> Summary:
    """Start an evaluation or resume it, and write its report.

    Args:
        config: What to compare.
        places: Where things are.
        note: Called with each progress message.

    Raises:
        AlignProError: Something is missing, damaged or failed; what was computed is kept.
    """
    with open_evaluation(config, places, note) as evaluation:
        loaded, lineup = evaluation.loaded, evaluation.lineup
        if config.dial is not None:
            loaded.require_llama("The dial")
        hint = choose_constant(evaluation, note)
        records = answer_all(
            lineup,
            loaded.bench,
            lambda name: _open_system(evaluation, hint, name),
            evaluation.journal(RESULTS),
            note,
        )
        pools = answer_pools(lineup, loaded.bench, records, evaluation.journal(FRONTIER), note)
        judged = pair_notes(evaluation, records, note)
        dial: tuple[DialCurve, ...] = ()
        if config.dial is not None:
            note("Turning the λ dial.")
            dial = dial_curves(evaluation, config.dial)
        added = [hint.note(lineup.constant)] if hint and lineup.constant else []
        oracle = _oracle_notes(config, places)
        leaked = leak_notes(records, evaluation.references)
        summary = summarise(
            lineup,
            records,
            pools,
            judge_accuracies({judge.name: judge.reward for judge in config.judge}, places.store),
            plain(config),
            evaluation.models,
            dial,
            (*evaluation.notes, *leaked, *added, *oracle, *judged, *_scope(config)),
        )
        followed = constraint_accuracies(lineup, records, evaluation.references)
        summary = replace(summary, constraints=followed)
        write_report(places.run, summary, records)
    return summary


def _open_system(evaluation: Evaluation, hint: ConstantHint | None, name: str) -> System:
    """Load a system of the configuration, or one that was added."""
    section = next(section for section in evaluation.systems if section.name == name)
    text = hint.text if hint else ""
    return open_system(
        section, evaluation.loaded, evaluation.places, evaluation.lineup.prompts, text
    )


def _oracle_notes(config: EvalConfig, places: Places) -> Iterator[str]:
    """How the oracle was trained, beside how it is judged."""
    if config.oracle is not None:
        card = read_oracle_card(places.store.path("target", config.oracle.source))
        yield oracle_note(config.oracle.name, card, config.answers)


def write_report(folder: Path, summary: Summary, records: Sequence[ResultRow]) -> None:
    """Write summary.json, summary.md, the folder of figures and report.html.

    Args:
        folder: The folder of the evaluation.
        summary: What was found.
        records: The prompts and answers to browse.
    """
    write_summary(folder, summary)
    write_text(folder / TEXT, as_markdown(summary))
    write_figures(summary, folder / FIGURES)
    write_text(folder / PAGE, as_page(summary, records))


def _scope(config: EvalConfig) -> Iterator[str]:
    """What a reader might overlook."""
    if any(part.kind == "check" for part in config.judge[0].reward):
        yield (
            f"What is chosen by {config.judge[0].name}, such as the best of n answers, is chosen "
            "by who knows the right answer: it shows what a perfect judge would be worth, and "
            "users have none."
        )
    for system in config.system:
        if system.data:
            yield f"{system.name} answers only {', '.join(system.data)}."
        if isinstance(system, RhoStarSection) and system.returns == "scored":
            yield (
                f"{system.name} continues the best of the {system.trials} or more trial answers, "
                f"of at most {system.trial_tokens} tokens, that the prompt in use has by then: the "
                "answer is chosen by the reward too."
            )
        elif isinstance(system, RhoStarSection):
            yield (
                f"{system.name} draws one rewrite a prompt and answers it {config.answers.count} "
                "times; prompters draw one for every answer."
            )
