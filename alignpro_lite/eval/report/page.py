"""The report as one HTML page that needs no other file and no network."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alignpro_lite.eval.progress import duration
from alignpro_lite.eval.records import ResultRow
from alignpro_lite.eval.report.breakdown import adaptation_table, kind_tables, segment_table
from alignpro_lite.eval.report.constraints import constraint_table
from alignpro_lite.eval.report.figures import inline_figures, looks
from alignpro_lite.eval.report.tables import (
    MARKS,
    Shown,
    accuracy_table,
    comparison_tables,
    difference_tables,
    equal_calls_tables,
    number,
    result_tables,
    show_estimate,
    show_share,
    text_table,
)
from alignpro_lite.eval.report.verdicts import verdicts
from alignpro_lite.eval.summary import Summary
from alignpro_lite.hardware.memory import format_bytes
from alignpro_lite.rewriting.certificate import word_changes

_TEMPLATE = "page.html"
_ALIKE = 0.5
"""Texts that share less are shown one after the other: word by word, nobody could read them."""
_DIFFERENCE = {"kept": 0, "removed": 1, "added": 2}
_CAPTIONS = {
    "mean": ("Mean reward", "Bars in a group answer the same prompts; lines are 95 % intervals."),
    "variance": (
        "Variance within a prompt",
        "How much the reward of several answers to one prompt varies; lower is steadier.",
    ),
    "dial": (
        "Reward against KL",
        "How far drawn rewrites are from the untrained prompter's, and what that buys. For draws "
        "at λ the distance is an upper limit. Curves may rest on fewer prompts than points.",
    ),
    "wins": (
        "Who beats whom",
        "Probability that an answer of the row's system beats one of the column's; ties count "
        "half.",
    ),
}


def as_page(summary: Summary, records: Sequence[ResultRow]) -> str:
    """Render the page.

    Args:
        summary: What was found.
        records: The prompts and answers to browse.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digest"] = _digest
    return environment.get_template(_TEMPLATE).render(
        summary=summary,
        verdicts=verdicts(summary),
        results=result_tables(summary),
        drawings=list(_drawings(summary)),
        constraints=constraint_table(summary),
        comparisons=comparison_tables(summary),
        kinds=kind_tables(summary),
        adaptations=adaptation_table(summary),
        segments=segment_table(summary),
        differences=difference_tables(summary),
        equal_calls=equal_calls_tables(summary),
        accuracies=accuracy_table(summary),
        texts=text_table(summary),
        dial=list(_dial_points(summary)),
        agreements=[
            (found.first, found.second, show_share(found.share)) for found in summary.agreements
        ],
        colours={name: colour for name, (colour, _) in looks(summary).items()},
        marks=MARKS,
        examples=_embedded(examples(summary, records)),
        configuration=json.dumps(summary.configuration, indent=2, ensure_ascii=False, default=str),
        models=[
            (model, format_bytes(model.size) if model.size else "–") for model in summary.models
        ],
        costs=[(name, duration(seconds)) for name, seconds in summary.cost.items()],
    )


def examples(summary: Summary, records: Sequence[ResultRow]) -> dict[str, Any]:
    """Lay out the records for the page's browser: a card a prompt.

    Args:
        summary: Names the systems and judges.
        records: What they did.

    Returns:
        Plain values for JSON. A card's `runs` are by the place of the system in `systems`, None
        where it did not run; a run's `rewrites` are its different x' as pieces [kind, text], kind
        0 kept, 1 removed, 2 added, or None for the prompt itself; `sent` names one for each answer.
    """
    by_key = {record.key: record for record in records}
    places = dict.fromkeys((record.data, record.number) for record in records)
    order = {name: place for place, name in enumerate(summary.data)}
    cards = []
    for data, place in sorted(places, key=lambda place: (order[place[0]], place[1])):
        found = [by_key.get((data, system, place)) for system in summary.systems]
        prompt = next((record.prompt for record in found if record), "")
        runs = [record and _run(record) for record in found]
        cards.append({"data": data, "number": place, "prompt": prompt, "runs": runs})
    return {
        "baseline": summary.systems.index(summary.baseline),
        "systems": list(summary.systems),
        "colours": [looks(summary)[name][0] for name in summary.systems],
        "judges": list(summary.judges),
        "data": list(summary.data),
        "cards": cards,
    }


def _run(record: ResultRow) -> dict[str, Any]:
    different = list(dict.fromkeys(record.sent))
    return {
        "rewrites": [_pieces(record.prompt, sent) for sent in different],
        "sent": [different.index(sent) for sent in record.sent],
        "answers": list(record.answers),
        "rewards": {name: list(values) for name, values in record.rewards.items()},
        "reason": record.reason,
    }


def _pieces(prompt: str, sent: str) -> list[tuple[int, str]] | None:
    if sent == prompt:
        return None
    changes = word_changes(prompt, sent)
    kept = sum(len(change.text.strip()) for change in changes if change.kind == "kept")
    if kept < _ALIKE * min(len(prompt), len(sent)):
        return [(_DIFFERENCE["removed"], prompt), (_DIFFERENCE["added"], sent)]
    return [(_DIFFERENCE[change.kind], change.text) for change in changes]


def _embedded(value: Mapping[str, Any]) -> Markup:
    """JSON that no text in it can end early: HTML sees no tag, entity or comment in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _digest(script: str) -> str:
    """The name by which a content security policy lets an inline script run."""
    found = hashlib.sha256(str(script).encode()).digest()
    return f"sha256-{base64.b64encode(found).decode()}"


def _drawings(summary: Summary) -> Iterator[tuple[str, str, Markup]]:
    """Title, caption and SVG of every figure."""
    matrices = iter(summary.matrices)
    for name, svg in inline_figures(summary).items():
        kind = name.partition("-")[0]
        title, caption = _CAPTIONS[kind]
        if kind == "wins":
            title = f"{title}, judged by {next(matrices).judge}"
        yield title, caption, Markup(svg)


def _dial_points(summary: Summary) -> Iterator[tuple[str, str, str, Shown]]:
    for curve in summary.dial:
        for point in curve.points:
            yield curve.name, point.setting, number(point.kl), show_estimate(point.reward)
