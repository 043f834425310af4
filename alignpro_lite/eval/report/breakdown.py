"""The tables of what a mean over all prompts hides."""

from __future__ import annotations

from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.report.tables import (
    NOTHING,
    Shown,
    Table,
    number,
    percent,
    show_difference,
    show_share,
)
from alignpro_lite.eval.summary import KindResult, Summary
from alignpro_lite.measure.adaptation import Information
from alignpro_lite.measure.segments import SEGMENT_WORDS, SEGMENTS


def kind_tables(summary: Summary) -> list[Table]:
    """Tabulate every system by kind of prompt, judge by judge."""
    versus = f"Minus {summary.constant}" if summary.constant else "Minus a constant hint"
    return [
        Table(
            f"By kind of prompt, judged by {judge}",
            (
                "System", "Kind", "Prompts", f"Gain over {summary.baseline}", versus,
                *_harm_columns(summary),
            ),
            tuple(_kind_row(found) for found in summary.by_kind if found.judge == judge),
        )
        for judge in summary.judges
        if summary.by_kind
    ]  # fmt: skip


def _harm_columns(summary: Summary) -> tuple[str, str]:
    luck = summary.by_kind[0].harm
    each, every = (percent(share).text for share in (luck.each_by_luck, luck.every_by_luck))
    return (
        f"Each answer worse (luck: {each})",
        f"Every answer worse than all (luck: {every})",
    )


def _kind_row(found: KindResult) -> tuple[Shown, ...]:
    over = found.over_constant
    return (
        Shown(found.system),
        Shown("all kinds" if found.kind == ALL else found.kind),
        Shown(str(found.prompts)),
        show_difference(found.gain),
        Shown(NOTHING) if over is None else show_difference(over),
        show_share(found.harm.each),
        show_share(found.harm.every),
    )


def adaptation_table(summary: Summary) -> Table:
    """Tabulate how the rewrites of each system depend on their prompts."""
    head = (
        "System", "Prompts", "Unchanged", "Rewrite of their own", "Different additions",
        "Bits about the kind, whole", "Bits about the kind, first word",
    )  # fmt: skip
    rows = tuple(
        (
            Shown(system),
            Shown(str(found.prompts)),
            percent(found.unchanged),
            percent(found.own),
            Shown(str(found.distinct)),
            _bits(found.whole),
            _bits(found.opening),
        )
        for system, found in summary.adaptations.items()
    )
    return Table("How different the rewrites are", head, rows)


def _bits(found: Information) -> Shown:
    detail = (
        f"{number(found.plain, digits=2)} less {number(found.by_chance, digits=2)} by chance, "
        f"of {number(found.most, digits=2)}, p {found.p:.3f}"
    )
    return Shown(number(found.corrected, digits=2), detail)


def segment_table(summary: Summary) -> Table:
    """Tabulate how many answers go on how far, and how much they repeat themselves there."""
    names = [
        f"Words {place * SEGMENT_WORDS + 1} to {(place + 1) * SEGMENT_WORDS}"
        for place in range(SEGMENTS - 1)
    ]
    head = ("System", "Cut", *names, f"From word {(SEGMENTS - 1) * SEGMENT_WORDS + 1}")
    rows = tuple(
        (
            Shown(system),
            percent(found.cut),
            *(
                Shown(percent(repeated).text, f"reached by {percent(reached).text}")
                for repeated, reached in zip(found.repeated, found.reached, strict=True)
            ),
        )
        for system, found in summary.segments.items()
    )
    return Table("Repetition further down in the answers", head, rows)
