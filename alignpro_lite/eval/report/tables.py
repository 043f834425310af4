"""The report of an evaluation: one HTML file to read offline, Markdown to paste, figures."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from alignpro_lite.eval.figures import inline_figures, looks, overall, write_figures
from alignpro_lite.eval.progress import duration
from alignpro_lite.eval.results import ResultRow
from alignpro_lite.eval.summary import ALL, ModelUsed, Summary, Versus
from alignpro_lite.hardware.memory import format_bytes
from alignpro_lite.measure.statistics import Estimate
from alignpro_lite.registry.storage import write_text
from alignpro_lite.rewriting.certificate import word_changes

PAGE = "report.html"
TEXT = "summary.md"
FIGURES = "figures"
SIGNIFICANT = 0.05
"""A gain counts if its interval leaves zero out and its adjusted p value is below this."""

_ALL_TITLE = "All data sets"
_NOTHING = "–"
_MINUS = "\N{MINUS SIGN}"
_BETTER, _WORSE, _SAME = "better", "worse", "same"
_FINDS = {_BETTER: "finds it better", _WORSE: "finds it worse", _SAME: "finds no difference"}
_MARKS = {_BETTER: "▲", _WORSE: "▼", _SAME: "≈"}
_ALIKE = 0.5
"""Texts that share less are shown one after the other: word by word, nobody could read them."""
_DIFFERENCE = {"kept": 0, "removed": 1, "added": 2}
_CAPTIONS = {
    "mean": ("Mean reward", "Bars of one group answer the same prompts; lines are 95 % intervals."),
    "variance": (
        "Variance within a prompt",
        "How much the reward of several answers to one prompt varies; lower is steadier.",
    ),
    "dial": (
        "Reward against KL",
        "How far a system's rewrites are from the untrained prompter's, and what that buys. Curves "
        "may rest on fewer prompts than the systems' points.",
    ),
    "wins": (
        "Who beats whom",
        "Probability that an answer of the row's system beats one of the column's; ties half.",
    ),
}


@dataclass(frozen=True)
class Shown:
    """What a place of a table shows.

    Attributes:
        text: The number or name.
        detail: Its interval, or nothing.
        tone: better, worse or same, where that is decided; else nothing.
    """

    text: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table, for the page and for Markdown.

    Attributes:
        title: What it holds.
        head: Names of the columns.
        rows: What they show; the first of each is the system.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Shown, ...], ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a system beats the baseline.

    Attributes:
        tone: better, worse or same.
        sentence: The same in words, with the numbers.
    """

    tone: str
    sentence: str


@dataclass(frozen=True)
class Drawing:
    """A figure on the page.

    Attributes:
        title: What it shows.
        caption: How to read it.
        svg: The figure itself.
    """

    title: str
    caption: str
    svg: Markup


def write_report(folder: Path, summary: Summary, records: Sequence[ResultRow]) -> None:
    """Write report.html, summary.md and the folder of figures.

    Args:
        folder: Of the evaluation.
        summary: What was found.
        records: The prompts and answers that can be looked through.
    """
    write_text(folder / TEXT, as_markdown(summary))
    write_figures(summary, folder / FIGURES)
    write_text(folder / PAGE, as_page(summary, records))


def as_page(summary: Summary, records: Sequence[ResultRow]) -> str:
    """Render the page; it needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digest"] = _digest
    styles = looks(summary)
    return environment.get_template(PAGE).render(
        summary=summary,
        verdicts=verdicts(summary),
        headlines=[headline(summary, overall(summary), judge) for judge in summary.judges],
        drawings=list(_drawings(summary)),
        comparisons=[
            comparison(summary, data, judge)
            for judge in summary.judges
            for data in _data_shown(summary)
        ],
        dial=_dial_points(summary),
        agreements=[(one.first, one.second, _share(one.share)) for one in summary.agreements],
        colours={name: look.colour for name, look in styles.items()},
        marks=_MARKS,
        examples=_embedded(examples(summary, records)),
        configuration=json.dumps(summary.configuration, indent=2, ensure_ascii=False, default=str),
        models=[(one, _size(one)) for one in summary.models],
        costs=[(name, duration(seconds)) for name, seconds in summary.cost.items()],
    )


def as_markdown(summary: Summary) -> str:
    """Render the tables that people paste elsewhere."""
    parts = ["# Evaluation", ""]
    parts += [f"- {_MARKS[one.tone]} {_plain(one.sentence)}" for one in verdicts(summary)]
    for judge in summary.judges:
        for data in _data_shown(summary):
            table = headline(summary, data, judge)
            parts += ["", f"## {_plain(table.title)}", "", *_markdown_rows(table)]
    if summary.notes:
        parts += ["", "## Notes", "", *(f"- {_plain(note)}" for note in summary.notes)]
    return "\n".join(parts) + "\n"


def verdicts(summary: Summary) -> tuple[Verdict, ...]:
    """Say for every other system whether it beats the baseline beyond the noise.

    A system that answers only some data sets gets a verdict for each of them.
    """
    others = [name for name in summary.systems if name != summary.baseline]
    return tuple(verdict for name in others for verdict in _verdicts(summary, name))


def _verdicts(summary: Summary, system: str) -> list[Verdict]:
    judge = summary.judges[0]
    whole = _versus(summary, overall(summary), system, judge)
    parts = [one for one in summary.versus if (one.system, one.judge) == (system, judge)]
    if not parts:
        says = f"{system} shares too few prompts with {summary.baseline} to be compared."
        return [Verdict(_SAME, says)]
    return [_verdict(summary, one) for one in ([whole] if whole else parts)]


def _verdict(summary: Summary, found: Versus) -> Verdict:
    baseline, system = summary.baseline, found.system
    tone = _tone(found)
    says = {
        _BETTER: f"{system} beats {baseline} beyond the noise",
        _WORSE: f"{system} is worse than {baseline} beyond the noise",
        _SAME: f"{system} does not differ from {baseline} beyond the noise",
    }[tone]
    gain = found.gain
    numbers = (
        f"its mean reward is {_number(abs(gain.value))} {'lower' if gain.value < 0 else 'higher'} "
        f"(95 % interval {_number(gain.low, signed=True)} to {_number(gain.high, signed=True)}, "
        f"p {_p(found.p_adjusted)} after Holm's correction)"
    )
    echoes = [
        f"; {other} {_FINDS[_tone(second)]}"
        for other in summary.judges[1:]
        if (second := _versus(summary, found.data, system, other))
    ]
    where = "" if found.data == overall(summary) else f"On {found.data}, "
    return Verdict(tone, f"{where}{says}: {numbers}{''.join(echoes)}.")


def _tone(found: Versus) -> str:
    if found.p_adjusted >= SIGNIFICANT or found.gain.low <= 0 <= found.gain.high:
        return _SAME
    return _BETTER if found.gain.value > 0 else _WORSE


def headline(summary: Summary, data: str, judge: str) -> Table:
    """Tabulate the systems on one data set under one judge."""
    rows = []
    for system in summary.systems:
        cell = summary.cell(data, system, judge)
        if cell is None:
            continue
        found = _versus(summary, data, system, judge)
        rows.append(
            (
                Shown(system),
                _estimate(cell.mean),
                _gain(found),
                Shown(_p(found.p_adjusted).removeprefix("= ")) if found else Shown(_NOTHING),
                _share(found.answer_win) if found else Shown(_NOTHING),
                _estimate(cell.within),
                _share(found.recovered) if found and found.recovered else Shown(_NOTHING),
                Shown(_NOTHING if cell.kl is None else _number(cell.kl)),
                Shown(f"{cell.words:.0f}"),
                Shown(f"{cell.prompts} × {cell.answers}"),
            )
        )
    head = (
        "System", "Mean reward", f"Gain over {summary.baseline}", "p, corrected", "Win rate",
        "Variance", "Oracle's gain", "KL, nats", "Words", "Prompts × answers",
    )  # fmt: skip
    return Table(_title(data, judge), head, tuple(rows))


def comparison(summary: Summary, data: str, judge: str) -> Table:
    """Tabulate how systems fare against the baseline, prompt by prompt and answer by answer."""
    rows = [
        (
            Shown(found.system),
            _share(found.win),
            _share(found.tie),
            _share(found.loss),
            _share(found.answer_win),
            _share(found.length_controlled),
            _estimate(found.variance, signed=True),
            _share(found.recovered) if found.recovered else Shown(_NOTHING),
        )
        for system in summary.systems
        if (found := _versus(summary, data, system, judge))
    ]
    head = (
        "System", "Prompts won", "Tied", "Lost", "Answers won", "Of equal length",
        "Variance, difference", "Oracle's gain",
    )  # fmt: skip
    return Table(_title(data, judge), head, tuple(rows))


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
    by_key = {one.key: one for one in records}
    places = dict.fromkeys((one.data, one.number) for one in records)
    order = {name: place for place, name in enumerate(summary.data)}
    cards = []
    for data, number in sorted(places, key=lambda place: (order[place[0]], place[1])):
        found = [by_key.get((data, system, number)) for system in summary.systems]
        prompt = next((one.prompt for one in found if one), "")
        cards.append({"data": data, "number": number, "prompt": prompt, "runs": _runs(found)})
    return {
        "baseline": summary.systems.index(summary.baseline),
        "systems": list(summary.systems),
        "colours": [looks(summary)[name].colour for name in summary.systems],
        "judges": list(summary.judges),
        "data": list(summary.data),
        "cards": cards,
    }


def _runs(found: Sequence[ResultRow | None]) -> list[dict[str, Any] | None]:
    return [None if one is None else _run(one) for one in found]


def _run(record: ResultRow) -> dict[str, Any]:
    different = list(dict.fromkeys(record.sent))
    return {
        "rewrites": [_pieces(record.prompt, sent) for sent in different],
        "sent": [different.index(sent) for sent in record.sent],
        "answers": list(record.answers),
        "rewards": {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in record.rewards.items()
        },
        "reason": record.reason,
    }


def _pieces(prompt: str, sent: str) -> list[tuple[int, str]] | None:
    if sent == prompt:
        return None
    changes = word_changes(prompt, sent)
    kept = sum(len(one.text.strip()) for one in changes if one.kind == "kept")
    if kept < _ALIKE * min(len(prompt), len(sent)):
        return [(_DIFFERENCE["removed"], prompt), (_DIFFERENCE["added"], sent)]
    return [(_DIFFERENCE[one.kind], one.text) for one in changes]


def _embedded(value: Mapping[str, Any]) -> Markup:
    """JSON that no text in it can end early: HTML sees no tag, entity or comment in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _digest(script: str) -> str:
    """What a content security policy calls an inline script it lets run."""
    found = hashlib.sha256(str(script).encode()).digest()
    return f"sha256-{base64.b64encode(found).decode()}"


def _drawings(summary: Summary) -> Iterator[Drawing]:
    matrices = iter(summary.matrices)
    for name, svg in inline_figures(summary).items():
        kind = name.partition("-")[0]
        title, caption = _CAPTIONS[kind]
        if kind == "wins":
            title = f"{title}, judged by {next(matrices).judge}"
        yield Drawing(title, caption, Markup(svg))


def _dial_points(summary: Summary) -> list[tuple[str, str, str, Shown]]:
    return [
        (curve.name, one.setting, _number(one.kl), _estimate(one.reward))
        for curve in summary.dial
        for one in curve.points
    ]


def _data_shown(summary: Summary) -> tuple[str, ...]:
    """All together first, then one by one."""
    return tuple(dict.fromkeys((overall(summary), *summary.data)))


def _title(data: str, judge: str) -> str:
    return f"{_ALL_TITLE if data == ALL else data}, judged by {judge}"


def _versus(summary: Summary, data: str, system: str, judge: str) -> Versus | None:
    wanted = (data, system, judge)
    return next((v for v in summary.versus if (v.data, v.system, v.judge) == wanted), None)


def _gain(found: Versus | None) -> Shown:
    if found is None:
        return Shown(_NOTHING)
    plain = _estimate(found.gain, signed=True)
    return Shown(plain.text, plain.detail, _tone(found))


def _estimate(found: Estimate, signed: bool = False) -> Shown:
    return Shown(
        _number(found.value, signed),
        f"{_number(found.low, signed)} to {_number(found.high, signed)}",
    )


def _share(found: Estimate) -> Shown:
    low, high = (_number(100 * end, digits=0) for end in (found.low, found.high))
    return Shown(f"{_number(100 * found.value, digits=0)} %", f"{low} to {high}")


def _number(value: float, signed: bool = False, digits: int = 3) -> str:
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    # A rounded zero has no sign.
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", _MINUS)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _size(model: ModelUsed) -> str:
    return format_bytes(model.size) if model.size else _NOTHING


def _markdown_rows(table: Table) -> Iterator[str]:
    yield _markdown_row(table.head)
    yield _markdown_row(["---"] + ["---:"] * (len(table.head) - 1))
    for row in table.rows:
        yield _markdown_row([_markdown_text(one) for one in row])


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(text) for text in texts)} |"


def _markdown_text(shown: Shown) -> str:
    text = f"{shown.text} ({shown.detail})" if shown.detail else shown.text
    return f"{text} {_MARKS[shown.tone]}" if shown.tone else text


def _plain(text: str) -> str:
    """Text that stays text in Markdown, on one line."""
    text = re.sub(r"[\\|&*`\[]|<(?=[\w/!?])", r"\\\g<0>", text)
    return " ".join(text.split())
