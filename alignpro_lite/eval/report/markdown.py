"""The report as Markdown: the tables that people paste elsewhere, and exchanges to read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from alignpro_lite.eval.records import ResultRow
from alignpro_lite.eval.report.breakdown import adaptation_table, kind_tables, segment_table
from alignpro_lite.eval.report.constraints import constraint_table
from alignpro_lite.eval.report.tables import (
    MARKS,
    Shown,
    Table,
    accuracy_table,
    difference_tables,
    equal_calls_tables,
    number,
    result_tables,
    text_table,
)
from alignpro_lite.eval.report.verdicts import verdicts
from alignpro_lite.eval.summary import Summary

_EXCHANGES = 20


def as_markdown(summary: Summary) -> str:
    """Render the verdicts, the tables and the notes."""
    parts = ["# Evaluation", ""]
    parts += [
        f"- {MARKS[verdict.tone]} {as_plain_text(verdict.text)}" for verdict in verdicts(summary)
    ]
    tables = (
        *result_tables(summary),
        constraint_table(summary),
        *kind_tables(summary),
        *difference_tables(summary),
        *equal_calls_tables(summary),
        accuracy_table(summary),
        adaptation_table(summary),
        segment_table(summary),
        text_table(summary),
    )
    for table in (table for table in tables if table.rows):
        parts += ["", *table_lines(table)]
    if summary.notes:
        parts += ["", "## Notes", "", *(f"- {as_plain_text(note)}" for note in summary.notes)]
    return "\n".join(parts) + "\n"


def exchanges_as_markdown(summary: Summary, records: Sequence[ResultRow], system: str) -> str:
    """Render twenty exchanges of a system, spread evenly over its prompts.

    Args:
        summary: Names the baseline and the judges.
        records: What the systems did.
        system: Whose exchanges; each is followed by the baseline's answer to the same prompt.
    """
    judge = summary.judges[0]
    own, baseline = (
        {(record.data, record.number): record for record in records if record.system == name}
        for name in (system, summary.baseline)
    )
    shared = [place for place in own if place in baseline]
    chosen = np.linspace(0, len(shared) - 1, min(_EXCHANGES, len(shared))).astype(int)
    parts = [f"# {len(chosen)} exchanges of the system {as_plain_text(system)}"]
    for place in (shared[index] for index in chosen):
        record, plain = own[place], baseline[place]
        parts.append(
            f"## {record.prompt}\n\n"
            f"**Sent:** {record.sent[0]}\n\n"
            f"**Answer ({_score(record.rewards[judge][0])}):** {record.answers[0]}\n\n"
            f"**{as_plain_text(summary.baseline).capitalize()} "
            f"({_score(plain.rewards[judge][0])}):** {plain.answers[0]}"
        )
    return "\n\n".join(parts) + "\n"


def _score(score: float | None) -> str:
    return "no score" if score is None else number(score, True, 2)


def table_lines(table: Table) -> Iterator[str]:
    """Render a table under its title."""
    yield from (f"## {as_plain_text(table.title)}", "")
    yield _row(table.head)
    yield _row(["---"] + ["---:"] * (len(table.head) - 1))
    for row in table.rows:
        yield _row([_cell(shown) for shown in row])


def _row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(as_plain_text(text) for text in texts)} |"


def _cell(shown: Shown) -> str:
    text = f"{shown.text} ({shown.detail})" if shown.detail else shown.text
    return f"{text} {MARKS[shown.tone]}" if shown.tone else text


def as_plain_text(text: str) -> str:
    """Text that stays text in Markdown, on one line."""
    text = re.sub(r"[\\|&*`\[]|<(?=[\w/!?])", r"\\\g<0>", text)
    return " ".join(text.split())
