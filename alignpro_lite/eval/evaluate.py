"""One evaluation from its configuration to its report, in a folder that can be taken up again."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import metadata

from tqdm import tqdm

from alignpro_lite.eval.analysis import Answers, agreements, cells, matrices, versus
from alignpro_lite.eval.config import EvalConfig, RhoStarSection
from alignpro_lite.eval.dial import DialRun
from alignpro_lite.eval.opening import Evaluation, opened
from alignpro_lite.eval.pairs import pair_notes
from alignpro_lite.eval.report import write_report
from alignpro_lite.eval.results import ResultRow
from alignpro_lite.eval.runner import run
from alignpro_lite.eval.summary import DialCurve, ModelUsed, Summary
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.registry.record import plain
from alignpro_lite.registry.storage import write_text

SUMMARY = "summary.json"
REPORT = "report.html"
_PACKAGES = ("alignpro-lite", "llama-cpp-python", "onnxruntime", "onnxruntime-gpu", "numpy")


def evaluate(config: EvalConfig, places: Places, note: Callable[[str], None]) -> Summary:
    """Begin an evaluation or take it up, and write its report.

    Args:
        config: What to compare.
        places: Where.
        note: Told what people who wait should know.

    Raises:
        AlignProError: Something is missing, damaged or failed; what was computed is kept.
    """
    with opened(config, places, note) as evaluation:
        if config.dial is not None:
            evaluation.loaded.require_llama("The dial")
        records = run(evaluation, note)
        judged = pair_notes(evaluation, records, note)
        dial = _dial(evaluation, note)
        notes = (*evaluation.notes, *judged)
        summary = summarise(config, records, evaluation.models, dial, notes)
        text = json.dumps(asdict(summary), indent=2, ensure_ascii=False)
        write_text(places.run / SUMMARY, text + "\n")
        write_report(places.run, summary, records)
    return summary


def _dial(evaluation: Evaluation, note: Callable[[str], None]) -> tuple[DialCurve, ...]:
    section = evaluation.config.dial
    if section is None:
        return ()
    note("Turning the λ dial.")
    with tqdm(total=1, unit="prompt") as bar:

        def on_step(done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.refresh()

        return DialRun(evaluation, section).curves(on_step)


def summarise(
    config: EvalConfig,
    records: Sequence[ResultRow],
    models: Sequence[ModelUsed],
    dial: tuple[DialCurve, ...],
    notes: Sequence[str],
) -> Summary:
    """Work out what the records say."""
    answers = Answers.of(config, records)
    cost: dict[str, float] = {}
    for one in records:
        cost[one.system] = cost.get(one.system, 0.0) + one.seconds
    return Summary(
        baseline=config.baseline,
        oracle=config.oracle.name if config.oracle else None,
        judges=answers.judges,
        data=tuple(one.name for one in config.data),
        systems=tuple(answers.rows),
        cells=tuple(cells(answers)),
        versus=versus(answers),
        matrices=matrices(answers),
        agreements=agreements(answers),
        dial=dial,
        models=tuple(models),
        configuration=plain(config),
        versions=dict(_versions()),
        cost=cost,
        notes=(*notes, *_scope(config)),
    )


def _scope(config: EvalConfig) -> Iterator[str]:
    """What a reader might overlook."""
    for system in config.system:
        if system.data:
            yield f"{system.name} answers only {', '.join(system.data)}."
        if isinstance(system, RhoStarSection) and system.returns == "scored":
            yield (
                f"{system.name} returns the best of the {system.trials} or more trial answers that "
                "the drawn rewrite has by then: the answer is chosen by the reward too."
            )
        elif isinstance(system, RhoStarSection):
            yield (
                f"{system.name} draws one rewrite a prompt and answers it {config.answers.count} "
                "times; prompters draw one for every answer."
            )


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", platform.python_version()
    yield "system", f"{platform.system()} {platform.machine()}, {usable_cores()} cores"
    for name in _PACKAGES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
