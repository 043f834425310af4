"""`eval headroom`: can rewriting pay on this target and these prompts? `measure.headroom` has how.

What is tried on each prompt is decided in the beginning, by what the budget allows. Prompts follow
one after the other until it is spent, so a run can be continued with a larger one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import structs
from tqdm import tqdm

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.errors import InputError
from alignpro_lite.eval.config import (
    DataSetSection,
    EvalConfig,
    HeadroomSection,
    JudgeSection,
    NoPrompterSection,
)
from alignpro_lite.eval.design import HeadroomBudget, HeadroomDesign, plan_design
from alignpro_lite.eval.evaluation import Evaluation, open_evaluation
from alignpro_lite.eval.hints import read_hints
from alignpro_lite.eval.journal import CURE
from alignpro_lite.eval.judges import judge_accuracies
from alignpro_lite.eval.loaded import Loaded
from alignpro_lite.eval.progress import duration
from alignpro_lite.eval.report.headroom import HeadroomReport, headroom_page, headroom_text
from alignpro_lite.eval.report.verdicts import judge_verdicts
from alignpro_lite.eval.trying import TriedRow, Trying
from alignpro_lite.experiment.prompts import prompt_format
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.experiment.sections import GgufSection
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.measure.headroom import FEWEST_PROMPTS, measure_headroom
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.record import Origin, parse_written, plain
from alignpro_lite.registry.storage import write_text
from alignpro_lite.reward.loading import scorer_named
from alignpro_lite.target.rollout import AnswerPlan

HEADROOM = "headroom.json"
HEADROOM_TEXT = "headroom.md"
HEADROOM_PAGE = "headroom.html"
TRIED = "tried.jsonl"
DESIGN = "design.jsonl"
_MOST_PROMPTS = 1000
_LONGEST_PROMPT = 8000
_MOST_CONTEXT = 8192
_TIMED_PROMPTS, _TIMED_REWRITES, _TIMED_ANSWERS = 2, 1, 2
"""What is tried to see how long it takes, besides a constant hint."""
_TIMING = 2**31
"""Number of the random stream of that; no prompt has it."""
_BAR = "{l_bar}{bar}| {n_fmt} of about {total_fmt} prompts, {elapsed}{postfix}"


def headroom_config(
    prompts: Path, models: Mapping[str, str], plan: AnswerPlan, store: ModelStore
) -> EvalConfig:
    """The configuration of a run on a file of prompts, whose folder is the data folder.

    Args:
        prompts: The file, in any format that `numbered_rows` reads.
        models: Names or paths of the `target`, the `prompter` and the `reward`.
        plan: How the target is asked.
        store: Where models are.

    Raises:
        InputError: The file cannot be read.
        AlignProError: The target is missing or cannot be read.
    """
    known = read_header(store.path("target", models["target"])).context_length
    data = DataSetSection(
        name="prompts",
        path=prompts.name,
        format=prompt_format(prompts),
        part="all",
        prompts=_MOST_PROMPTS,
    )
    return EvalConfig(
        longest_prompt=_LONGEST_PROMPT,
        target=GgufSection(source=models["target"], context=min(known, _MOST_CONTEXT)),
        answers=plan,
        data=(data,),
        judge=(JudgeSection(name="reward", reward=(scorer_named(models["reward"]),)),),
        system=(NoPrompterSection(name="no prompter"),),
        headroom=HeadroomSection(bundle=models["prompter"]),
    )


def evaluate_headroom(
    config: EvalConfig, budget: HeadroomBudget, places: Places, note: Callable[[str], None]
) -> HeadroomReport:
    """Measure the headroom, or go on measuring it; write it as JSON, as text and as a page.

    Args:
        config: Its first judge is the reward, and all its data sets count.
        budget: What the run may cost.
        places: Where things are.
        note: Called with each progress message.

    Raises:
        InputError: Too few prompts could be tried.
        AlignProError: A model is missing or failed; what was computed is kept.
    """
    section = config.headroom or HeadroomSection()
    config = structs.replace(config, headroom=section)
    with open_evaluation(config, places, note) as evaluation:
        _require_prompts(len(evaluation.mixed(_MOST_PROMPTS)))
        sources = _sources(evaluation.loaded, section)
        general = tuple(hint.text for hint in read_hints(config.constant.file(places.data)))
        prompters = tuple(sources.values())
        design = _design(evaluation, section, prompters, general, budget, note)
        trying = Trying(evaluation.loaded.bench, prompters, design, config.seed)
        rows = _try_prompts(evaluation, trying, budget, note)
    found = measure_headroom([row.tried for row in rows if not row.left_out], len(design.hints))
    judge = config.judge[0]
    accuracies = judge_accuracies({judge.name: judge.reward}, places.store)
    left_out = [f"Prompt {row.number + 1} left out: {row.left_out}" for row in rows if row.left_out]
    report = HeadroomReport(
        found=found,
        worth=section.worth or found.smallest,
        hints=design.hints,
        sources=tuple(sources),
        seconds=sum(row.seconds for row in rows),
        models=evaluation.models,
        notes=(
            *evaluation.notes,
            *left_out,
            *_unscored_note(rows),
            *(verdict.text for verdict in judge_verdicts(judge.name, accuracies)),
        ),
    )
    text = json.dumps(report.as_json(), indent=2, ensure_ascii=False)
    write_text(places.run / HEADROOM, text + "\n")
    write_text(places.run / HEADROOM_TEXT, headroom_text(report))
    write_text(places.run / HEADROOM_PAGE, headroom_page(report))
    return report


def _unscored_note(rows: Sequence[TriedRow]) -> Iterator[str]:
    unscored = sum(row.unscored for row in rows)
    if unscored:
        yield (
            f"{unscored} of {sum(row.calls for row in rows)} answers have no score: each counts as "
            "the mean of the others to what was sent."
        )


def _sources(loaded: Loaded, section: HeadroomSection) -> dict[str, Prompter]:
    """The prompters whose rewrites are tried, by what the report calls them."""
    profile = loaded.profile(section.bundle)
    if not profile.is_trained:
        return {"ρ_sft": loaded.prompter(section.bundle)}
    learned = {"ρ_θ": loaded.prompter(section.bundle)}
    if not profile.has_reference:
        return learned
    return learned | {"ρ_sft": loaded.prompter(section.bundle, adapter=0.0)}


def _design(
    evaluation: Evaluation,
    section: HeadroomSection,
    sources: Sequence[Prompter],
    hints: Sequence[str],
    budget: HeadroomBudget,
    note: Callable[[str], None],
) -> HeadroomDesign:
    """What an earlier run decided, or what the budget allows now."""
    journal = evaluation.journal(DESIGN)
    if rows := list(journal.read()):
        return parse_written(HeadroomDesign, rows[0], Origin(journal.file, InputError, CURE))
    pace = 0.0 if budget.seconds is None else _seconds_a_call(evaluation, sources, hints, note)
    allowed = budget.calls_at(pace)
    design = plan_design(allowed, len(sources), section, hints)
    journal.append([plain(design)])
    note(_plan_text(design, len(sources), allowed))
    return design


def _plan_text(design: HeadroomDesign, sources: int, allowed: float) -> str:
    """What will be tried, and whether the budget is enough for it."""
    calls = design.calls(sources)
    tried = (
        f"On each prompt: {len(design.hints)} constant hints, {design.rewrites} rewrites of each "
        f"of {sources} prompters, {design.answers} answers to each, at most {calls} answers."
    )
    if allowed < FEWEST_PROMPTS * calls:
        share = FEWEST_PROMPTS * calls / allowed
        return f"{tried} The fewest prompts, {FEWEST_PROMPTS}, take {share:.1f} times the budget."
    return f"{tried} About {allowed / calls:.0f} prompts fit into the budget."


def _seconds_a_call(
    evaluation: Evaluation,
    sources: Sequence[Prompter],
    hints: Sequence[str],
    note: Callable[[str], None],
) -> float:
    """Time of an answer, with its share of the rewrites and of the scores.

    Raises:
        InputError: None of the prompts that it is timed with can be tried.
    """
    note("Timing rewrites, answers and scores.")
    design = HeadroomDesign(tuple(hints[:1]), _TIMED_REWRITES, _TIMED_ANSWERS)
    seed = stream_seed(evaluation.config.seed, _TIMING)
    trying = Trying(evaluation.loaded.bench, sources, design, seed)
    rows: list[TriedRow] = []
    for number, prompt in enumerate(evaluation.mixed(FEWEST_PROMPTS)):
        rows.append(trying.row(number, prompt))
        tried = [row for row in rows if not row.left_out]
        if len(tried) == _TIMED_PROMPTS:
            break
    if not tried:
        raise InputError(
            f"A prompt must be tried, to be timed; none of {len(rows)} could be, the last one "
            f"because {rows[-1].left_out}",
            "Correct that, use shorter prompts, or lower answers.max_tokens.",
        )
    return sum(row.seconds for row in tried) / sum(row.calls for row in tried)


def _try_prompts(
    evaluation: Evaluation, trying: Trying, budget: HeadroomBudget, note: Callable[[str], None]
) -> list[TriedRow]:
    """Try prompt after prompt until the budget is spent, after those of earlier runs.

    Raises:
        InputError: Most prompts fail.
    """
    journal = evaluation.journal(TRIED)
    origin = Origin(journal.file, InputError, CURE)
    rows = [parse_written(TriedRow, row, origin) for row in journal.read()]
    if rows:
        note(f"Resuming: {len(rows)} prompts are done.")
    prompts = evaluation.mixed(_MOST_PROMPTS)
    most = trying.design.calls(len(trying.sources))
    total = _planned(rows, budget, most, len(prompts))
    with tqdm(total=total, initial=len(rows), unit="prompt", bar_format=_BAR) as bar:
        while len(rows) < bar.total:
            rows.append(trying.row(len(rows), prompts[len(rows)]))
            journal.append([plain(rows[-1])])
            _require_answers(rows)
            bar.total = _planned(rows, budget, most, len(prompts))
            pace = sum(row.seconds for row in rows) / len(rows)
            left = duration(pace * (bar.total - len(rows)))
            bar.set_postfix_str(f"{left} left", refresh=False)
            bar.update()
    return rows


def _planned(rows: Sequence[TriedRow], budget: HeadroomBudget, most: int, prompts: int) -> int:
    """How many prompts are to be tried, judged by what the first ones took."""
    seconds, calls = sum(row.seconds for row in rows), sum(row.calls for row in rows)
    left_out = sum(bool(row.left_out) for row in rows)
    wanted = budget.prompts(len(rows), seconds, calls, most) if rows else FEWEST_PROMPTS
    return max(len(rows), min(max(wanted, FEWEST_PROMPTS + left_out), prompts))


def _require_prompts(count: int) -> None:
    """Refuse what `measure_headroom` would refuse, before anything is answered.

    Raises:
        InputError: There are too few prompts.
    """
    if count < FEWEST_PROMPTS:
        raise InputError(
            f"The headroom needs at least {FEWEST_PROMPTS} different prompts, found {count}.",
            "Add prompts; with 24 or more, intervals get useful.",
        )


def _require_answers(rows: Sequence[TriedRow]) -> None:
    """Stop where most prompts fail: the fault is not theirs.

    Raises:
        InputError: Says why the last one failed.
    """
    failed = [row for row in rows if row.left_out]
    if len(failed) >= FEWEST_PROMPTS and 2 * len(failed) > len(rows):
        raise InputError(
            f"{len(failed)} of {len(rows)} prompts could not be tried, the last one because "
            f"{failed[-1].left_out}",
            "Correct that, and choose another --output.",
        )
