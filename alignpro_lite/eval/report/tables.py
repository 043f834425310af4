"""The tables of a report, which the page and the Markdown show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.summary import JudgeAccuracy, Summary, Versus
from alignpro_lite.measure.statistics import Estimate

SIGNIFICANT = 0.05
"""A gain counts if its interval leaves zero out and its adjusted p value is below this."""
MARKS = {"better": "▲", "worse": "▼", "same": "≈"}
"""The sign of each tone."""

NOTHING = "–"
"""What stands for a number that there is not."""
_MINUS = "\N{MINUS SIGN}"


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


def tone_of(found: Versus) -> str:
    """Better or worse where both the interval and the adjusted p value say so, otherwise same."""
    if found.p_adjusted >= SIGNIFICANT or found.gain.low <= 0 <= found.gain.high:
        return "same"
    return "better" if found.gain.value > 0 else "worse"


def tone_of_gains(gains: Sequence[Estimate]) -> str:
    """Better if all intervals are above zero, worse if one is below it, otherwise the same."""
    if any(gain.high < 0 for gain in gains):
        return "worse"
    return "better" if all(gain.low > 0 for gain in gains) else "same"


def difference_tables(summary: Summary) -> list[Table]:
    """Tabulate every system minus every other one, judge by judge."""
    others = [name for name in summary.systems if name != summary.baseline]
    return [
        Table(
            f"Row minus column, judged by {judge}",
            ("System", *others),
            tuple(
                (Shown(row), *(_difference(summary, row, column, judge) for column in others))
                for row in others
            ),
        )
        for judge in summary.judges
        if len(others) > 1
    ]


def _difference(summary: Summary, row: str, column: str, judge: str) -> Shown:
    found = summary.difference(row, column, judge)
    if found is None:
        return Shown(NOTHING)
    return show_difference(found.gain)


def equal_calls_tables(summary: Summary) -> list[Table]:
    """Tabulate the best of n answers for every n, and the systems that ask as often beside it."""
    return [
        Table(
            f"At equal calls of the target, judged by {judge}",
            (
                "System", "Calls an answer", f"Gain over {summary.baseline}",
                "Best of as many answers", "Difference", "Prompts",
            ),
            (
                *(
                    (
                        Shown(f"best of {best.calls} answers"),
                        Shown(str(best.calls)),
                        show_estimate(best.gain, signed=True),
                        Shown(NOTHING),
                        Shown(NOTHING),
                        Shown(str(best.prompts)),
                    )
                    for best in summary.frontier
                    if best.judge == judge
                ),
                *(
                    (
                        Shown(found.system),
                        Shown(str(found.calls)),
                        show_estimate(found.gain, signed=True),
                        show_estimate(found.best, signed=True),
                        show_difference(found.difference),
                        Shown(str(found.prompts)),
                    )
                    for found in summary.equal_calls
                    if found.judge == judge
                ),
            ),
        )
        for judge in summary.judges
    ]  # fmt: skip


def show_difference(found: Estimate) -> Shown:
    """A difference with its interval, and its tone by that interval alone."""
    shown = show_estimate(found, signed=True)
    return Shown(shown.text, shown.detail, tone_of_gains([found]))


def accuracy_table(summary: Summary) -> Table:
    """Tabulate how often each judge is right, beside always taking the longer answer."""
    rows = [
        (
            Shown(found.judge),
            Shown(f"{number(found.weight, digits=2)} {found.part}"),
            Shown(found.data or "not measured"),
            Shown(str(found.pairs) if found.pairs else NOTHING),
            _accuracy(found),
            Shown(NOTHING if found.length is None else number(found.length)),
        )
        for found in summary.accuracies
    ]
    head = ("Judge", "Part", "Held-out pairs", "How many", "Right", "The longer answer")
    return Table("How often the judges are right", head, tuple(rows))


def _accuracy(found: JudgeAccuracy) -> Shown:
    if found.accuracy is None:
        return Shown(NOTHING)
    shown = show_estimate(found.accuracy)
    return Shown(shown.text, shown.detail, "worse" if found.is_below_length else "")


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
                Shown(show_p(found.p_adjusted).removeprefix("= ") if found else NOTHING),
                show_share(found.answer_win if found else None),
                show_estimate(cell.within),
                show_share(found.recovered if found else None),
                Shown(NOTHING if cell.kl is None else number(cell.kl)),
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
    answers = max((cell.answers for cell in summary.cells), default=0)
    head = (
        "System", f"Prompts won by means of {answers} answers", "Tied", "Lost", "Answers won",
        "Of equal length", "Variance, difference", "Oracle's gain",
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
                    percent,
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
                percent(answers.repeated),
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
        return Shown(NOTHING)
    plain = show_estimate(found.gain, signed=True)
    return Shown(plain.text, plain.detail, tone_of(found))


def show_estimate(found: Estimate, signed: bool = False) -> Shown:
    """A number with its interval."""
    interval = f"{number(found.low, signed)} to {number(found.high, signed)}"
    return Shown(number(found.value, signed), interval)


def show_share(found: Estimate | None) -> Shown:
    """A share in per cent with its interval; a dash where there is none."""
    if found is None:
        return Shown(NOTHING)
    low, high = (number(100 * end, digits=0) for end in (found.low, found.high))
    return Shown(f"{number(100 * found.value, digits=0)} %", f"{low} to {high}")


def percent(value: float | None) -> Shown:
    """A share in per cent; a dash where there is none."""
    return Shown(NOTHING if value is None else f"{number(100 * value, digits=0)} %")


def number(value: float, signed: bool = False, digits: int = 3) -> str:
    """A number as people read it: a true minus sign, and none before a rounded zero."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", _MINUS)


def show_p(value: float) -> str:
    """A p value as it stands after the letter p."""
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"
