"""The report of `eval headroom`: a verdict in one sentence, three tables, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2

from alignpro_lite.eval.progress import duration
from alignpro_lite.eval.report.markdown import as_plain_text, table_lines
from alignpro_lite.eval.report.tables import (
    MARKS,
    Shown,
    Table,
    number,
    show_estimate,
    tone_of_gains,
)
from alignpro_lite.eval.summary import ModelUsed
from alignpro_lite.measure.components import Components
from alignpro_lite.measure.headroom import RELIABLE, Headroom, HeadroomVerdict
from alignpro_lite.measure.statistics import Estimate

_TEMPLATE = "headroom.html"
_NOTHING = "–"
_TONES: dict[HeadroomVerdict, str] = {
    "hurts": "worse",
    "nothing": "same",
    "constant": "better",
    "choice": "better",
    "open": "better",
    "noisy": "same",
}


@dataclass(frozen=True)
class HeadroomReport:
    """What was found, and what it was found with.

    Attributes:
        found: The estimates.
        worth: The smallest gain that matters, in the reward's unit.
        hints: The constant hints, in the order of `found.constants`.
        sources: Names of the prompters, in the order of `found.sources`.
        seconds: What it took.
        models: What took part.
        notes: What a reader has to know, one sentence each.
    """

    found: Headroom
    worth: float
    hints: Sequence[str]
    sources: Sequence[str]
    seconds: float
    models: Sequence[ModelUsed]
    notes: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Plain data: everything that was estimated, and the verdict."""
        found = self.found
        return {
            "verdict": found.verdict(self.worth),
            "sentence": headroom_verdict(self).text,
            "best_hint": self.hints[found.best],
            "learnable_share": found.learnable_share,
            "worth": self.worth,
            "calls_needed": found.calls_for(self.worth),
            **asdict(self),
        }


def headroom_verdict(report: HeadroomReport) -> Shown:
    """What to do, in one sentence."""
    found, worth = report.found, number(report.worth)
    kind = found.verdict(report.worth)
    constant, extra, chosen = map(_with_interval, (found.constant, found.extra, found.chosen))
    choosing = "choosing per prompt would add" if found.constant.low > 0 else "choosing adds"
    needed = f"about {found.calls_for(report.worth):,} answers would tell it to ±{worth}"
    sentences: dict[HeadroomVerdict, str] = {
        "choice": f"Choosing a rewrite for each prompt pays: it gains {chosen}, which is {extra} "
        "more than the best constant hint; a prompter has something to learn here.",
        "constant": f"A constant hint is worth {constant}; {choosing} {extra}: training is "
        "unlikely to pay here.",
        "open": f"Rewriting pays, but it is open whether more than a constant hint is needed: the "
        f"best constant gains {constant}, and choosing per prompt adds {extra}; {needed}.",
        "hurts": f"Rewriting hurts: the best constant hint gains {constant}, and choosing per "
        f"prompt, with the prompt itself among the choices, {chosen}: send prompts as they are.",
        "nothing": f"There is nothing to gain that matters (at least {worth}): the best constant "
        f"hint gains {constant}, the best rewrite of each prompt {chosen}: training is unlikely "
        "to pay here.",
        "noisy": f"Too noisy to tell: so far the best constant hint gains {constant}, and the best "
        f"rewrite of each prompt {chosen}; {needed}.",
    }
    return Shown(sentences[kind], tone=_TONES[kind])


def headroom_tables(report: HeadroomReport) -> list[Table]:
    """Tabulate the gains, the parts of the variance, and the constant hints."""
    return [_gains(report), _variances(report), _constants(report)]


def _gains(report: HeadroomReport) -> Table:
    found = report.found
    rows = [
        ("the best constant hint, chosen on other prompts", found.constant),
        ("the best rewrite of each prompt, chosen by other answers", found.chosen),
        ("the second minus the first", found.extra),
        *(
            (f"rewrites of {name} as they come", gain)
            for name, gain in zip(report.sources, found.sources, strict=True)
        ),
        ("the best rewrite of each prompt, judged by the answers that chose it", found.apparent),
        ("what of that is no luck: the most that a prompter can learn", found.learnable),
    ]
    return Table(
        "What rewriting is worth",
        ("What is sent", "Gain over the prompt itself"),
        tuple((Shown(name), _gain_shown(gain)) for name, gain in rows),
    )


def _gain_shown(gain: Estimate) -> Shown:
    shown = show_estimate(gain, signed=True)
    return Shown(shown.text, shown.detail, tone_of_gains([gain]))


def _variances(report: HeadroomReport) -> Table:
    found = report.found
    named = zip(report.sources, found.own, strict=True)
    return Table(
        "Where the variance of the reward comes from",
        ("Rewrites", "Prompt", "Rewrite", "Prompt × rewrite", "Answer"),
        (
            _variance("constant hints and the prompt itself", found.shared),
            *(_variance(f"those of {name}, within a prompt", parts) for name, parts in named),
        ),
    )


def _variance(name: str, parts: Components) -> tuple[Shown, ...]:
    mixed = Shown(_NOTHING, "part of rewrite")
    return (
        Shown(name),
        _small(parts.prompt),
        _small(parts.rewrite),
        mixed if parts.interaction is None else _small(parts.interaction),
        _small(parts.answer),
    )


def _small(found: Estimate) -> Shown:
    """A variance, which may be small beside the others, with two significant digits."""
    digits = max(3, 1 - math.floor(math.log10(abs(found.value)))) if found.value else 3
    value, low, high = (number(n, digits=digits) for n in (found.value, found.low, found.high))
    return Shown(value, f"{low} to {high}")


def _constants(report: HeadroomReport) -> Table:
    found = zip(report.hints, report.found.constants, strict=True)
    ranked = sorted(found, key=lambda pair: -pair[1].value)
    return Table(
        "Constant hints",
        ("Hint", "Gain over the prompt itself"),
        tuple((Shown(hint), _gain_shown(gain)) for hint, gain in ranked),
    )


def headroom_remarks(report: HeadroomReport) -> Iterator[str]:
    """What the numbers mean, and how many answers would say more."""
    found = report.found
    yield f"The best constant hint over all prompts: “{report.hints[found.best]}”"
    yield (
        f"Of what the best rewrite of each prompt seems to gain, {_percent(found.learnable_share)} "
        "is left after shrinkage; the rest is luck, which no prompter can learn."
    )
    if found.reliable_answers is None:
        yield (
            "Between rewrites of one prompt no difference was found beyond the noise of answers."
        )
    else:
        yield (
            f"Of a difference between two rewrites of one prompt, as {found.answers} answers to "
            f"each show it, {_percent(found.reliability)} is real. For {_percent(RELIABLE)}, it "
            f"takes {math.ceil(found.reliable_answers)} answers to each."
        )
    width = max(gain.high - gain.low for gain in (found.constant, found.extra)) / 2
    yield (
        f"{found.calls:,} answers to {found.prompts} prompts took {duration(report.seconds)} and "
        f"tell gains to ±{number(width)}; ±{number(report.worth)}, taken for the smallest gain "
        f"that matters, needs about {found.calls_for(report.worth):,}."
    )
    yield (
        "Intervals of 95 % are over prompts; a variance below 0 is no more than noise. Hints were "
        "compared one by one: the highest of many gains is partly luck, the first table is not."
    )
    yield from report.notes


def headroom_text(report: HeadroomReport) -> str:
    """Render the report as Markdown."""
    verdict = headroom_verdict(report)
    parts = ["# Headroom", "", f"{MARKS[verdict.tone]} {as_plain_text(verdict.text)}"]
    for table in headroom_tables(report):
        parts += ["", *table_lines(table)]
    remarks = [f"- {as_plain_text(remark)}" for remark in headroom_remarks(report)]
    return "\n".join([*parts, "", "## Notes", "", *remarks]) + "\n"


def headroom_page(report: HeadroomReport) -> str:
    """Render the report as one HTML page that needs no other file."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        verdict=headroom_verdict(report),
        tables=headroom_tables(report),
        remarks=list(headroom_remarks(report)),
        models=report.models,
        marks=MARKS,
    )


def _with_interval(gain: Estimate) -> str:
    shown = show_estimate(gain, signed=True)
    return f"{shown.text} ({shown.detail})"


def _percent(share: float) -> str:
    return f"{number(100 * share, digits=0)} %"
