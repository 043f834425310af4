"""The table of IFEval's accuracies."""

from __future__ import annotations

from alignpro_lite.eval.report.tables import Shown, Table, show_estimate
from alignpro_lite.eval.summary import Summary


def constraint_table(summary: Summary) -> Table:
    """Tabulate how often each system's answers follow what their prompts ask for."""
    rows = tuple(
        (
            Shown(found.system),
            Shown(found.data),
            show_estimate(found.prompt_strict),
            show_estimate(found.constraint_strict),
            show_estimate(found.prompt_loose),
            show_estimate(found.constraint_loose),
            Shown(f"{found.prompts}, {found.constraints}"),
        )
        for found in summary.constraints
    )
    head = (
        "System", "Data", "Prompts, strict", "Constraints, strict", "Prompts, loose",
        "Constraints, loose", "How many",
    )  # fmt: skip
    return Table("Constraints followed", head, rows)
