"""The tables of a report, and the verdicts above them; the page and the Markdown show both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.summary import Summary, Versus
from alignpro_lite.measure.statistics import Estimate

SIGNIFICANT = 0.05
"""A gain counts if its interval leaves zero out and its adjusted p value is below this."""
MARKS = {"better": "▲", "worse": "▼", "same": "≈"}
"""The sign of each tone."""

_NOTHING = "–"
_MINUS = "\N{MINUS SIGN}"
_FINDINGS = {
    "better": "finds it better",
    "worse": "finds it worse",
    "same": "finds no difference",
}


@dataclass(frozen=True)
class Shown:
    """A number, name or sentence as the report shows it.

    Attributes:
        text: The number, name or sentence.
        detail: The interval of a number, or nothing.
        tone: better, worse or same, where that is decided; otherwise nothing.
    """

    text: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: What it holds.
        head: Names of the columns.
        rows: What they show; the first of each is the system.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Shown, ...], ...]


def verdicts(summary: Summary) -> tuple[Shown, ...]:
    """Say for every other system whether it beats the baseline beyond the noise.

    A system that answers only some data sets gets a verdict for each of them.
    """
    others = [name for name in summary.systems if name != summary.baseline]
    return tuple(verdict for name in others for verdict in _verdicts(summary, name))


def _verdicts(summary: Summary, system: str) -> list[Shown]:
    judge = summary.judges[0]
    whole = summary.against_baseline(summary.overall, system, judge)
    parts = [found for found in summary.versus if (found.system, found.judge) == (system, judge)]
    if not parts:
        sentence = f"{system} shares too few prompts with {summary.baseline} to be compared."
        return [Shown(sentence, tone="same")]
    return [_verdict(summary, found) for found in ([whole] if whole else parts)]


def _verdict(summary: Summary, found: Versus) -> Shown:
    baseline, system = summary.baseline, found.system
    tone = _tone(found)
    finding = {
        "better": f"{system} beats {baseline} beyond the noise",
        "worse": f"{system} is worse than {baseline} beyond the noise",
        "same": f"{system} does not differ from {baseline} beyond the noise",
    }[tone]
    gain = found.gain
    numbers = (
        f"its mean reward is {number(abs(gain.value))} {'lower' if gain.value < 0 else 'higher'} "
        f"(95 % interval {number(gain.low, signed=True)} to {number(gain.high, signed=True)}, "
        f"p {_p_value(found.p_adjusted)} after Holm's correction)"
    )
    echoes = [
        f"; {judge} {_FINDINGS[_tone(second)]}"
        for judge in summary.judges[1:]
        if (second := summary.against_baseline(found.data, system, judge))
    ]
    where = "" if found.data == summary.overall else f"On {found.data}, "
    return Shown(f"{where}{finding}: {numbers}{''.join(echoes)}.", tone=tone)


def _tone(found: Versus) -> str:
    if found.p_adjusted >= SIGNIFICANT or found.gain.low <= 0 <= found.gain.high:
        return "same"
    return "better" if found.gain.value > 0 else "worse"


def result_tables(summary: Summary) -> list[Table]:
    """Tabulate the systems: for every judge all data sets together, then each of them."""
    return [_results(summary, data, judge) for judge, data in _judged(summary)]


def _judged(summary: Summary) -> Iterator[tuple[str, str]]:
    """Every judge with all data sets together, then with each of them."""
    return product(summary.judges, dict.fromkeys((summary.overall, *summary.data)))


def _results(summary: Summary, data: str, judge: str) -> Table:
    rows = []
    for system in summary.systems:
        cell = summary.cell(data, system, judge)
        if cell is None:
            continue
        found = summary.against_baseline(data, system, judge)
        rows.append(
            (
                Shown(system),
                show_estimate(cell.mean),
                _gain(found),
                Shown(_p_value(found.p_adjusted).removeprefix("= ") if found else _NOTHING),
                show_share(found.answer_win if found else None),
                show_estimate(cell.within),
                show_share(found.recovered if found else None),
                Shown(_NOTHING if cell.kl is None else number(cell.kl)),
                Shown(f"{cell.words:.0f}"),
                Shown(f"{cell.prompts} × {cell.answers}"),
            )
        )
    head = (
        "System", "Mean reward", f"Gain over {summary.baseline}", "p, corrected", "Win rate",
        "Variance", "Oracle's gain", "KL, nats", "Words", "Prompts × answers",
    )  # fmt: skip
    return Table(_title(data, judge), head, tuple(rows))


def comparison_tables(summary: Summary) -> list[Table]:
    """Tabulate how systems fare against the baseline, prompt by prompt and answer by answer."""
    return [_comparison(summary, data, judge) for judge, data in _judged(summary)]


def _comparison(summary: Summary, data: str, judge: str) -> Table:
    rows = [
        (
            Shown(found.system),
            show_share(found.win),
            show_share(found.tie),
            show_share(found.loss),
            show_share(found.answer_win),
            show_share(found.length_controlled),
            show_estimate(found.variance, signed=True),
            show_share(found.recovered),
        )
        for system in summary.systems
        if (found := summary.against_baseline(data, system, judge))
    ]
    head = (
        "System", "Prompts won", "Tied", "Lost", "Answers won", "Of equal length",
        "Variance, difference", "Oracle's gain",
    )  # fmt: skip
    return Table(_title(data, judge), head, tuple(rows))


def text_table(summary: Summary) -> Table:
    """Tabulate what no reward sees: lengths, faithfulness, diversity and rambling of the texts."""
    rows = []
    for system, rewrites in summary.rewrites.items():
        answers, kept = summary.answers[system], rewrites.kept
        rows.append(
            (
                Shown(system),
                Shown(f"{rewrites.words:.1f}"),
                Shown(f"{rewrites.growth:.2f}"),
                *map(
                    _percent,
                    (
                        rewrites.unchanged,
                        rewrites.similarity,
                        kept.words,
                        kept.numbers,
                        kept.code,
                        rewrites.distinct_additions,
                    ),
                ),
                Shown(f"{answers.words:.1f}"),
                _percent(answers.repeated),
            )
        )
    head = (
        "System", "Words sent", "Growth", "Unchanged", "Similarity", "Words kept", "Numbers kept",
        "Code kept", "Distinct additions", "Words answered", "Repeated",
    )  # fmt: skip
    return Table("What no reward sees", head, tuple(rows))


def _title(data: str, judge: str) -> str:
    return f"{'All data sets' if data == ALL else data}, judged by {judge}"


def _gain(found: Versus | None) -> Shown:
    if found is None:
        return Shown(_NOTHING)
    plain = show_estimate(found.gain, signed=True)
    return Shown(plain.text, plain.detail, _tone(found))


def show_estimate(found: Estimate, signed: bool = False) -> Shown:
    """A number with its interval."""
    interval = f"{number(found.low, signed)} to {number(found.high, signed)}"
    return Shown(number(found.value, signed), interval)


def show_share(found: Estimate | None) -> Shown:
    """A share in per cent with its interval; a dash where there is none."""
    if found is None:
        return Shown(_NOTHING)
    low, high = (number(100 * end, digits=0) for end in (found.low, found.high))
    return Shown(f"{number(100 * found.value, digits=0)} %", f"{low} to {high}")


def _percent(value: float | None) -> Shown:
    return Shown(_NOTHING if value is None else f"{number(100 * value, digits=0)} %")


def number(value: float, signed: bool = False, digits: int = 3) -> str:
    """A number as people read it: a true minus sign, and none before a rounded zero."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", _MINUS)


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
