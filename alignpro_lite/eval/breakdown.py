"""What a mean over all prompts hides: kinds of prompts, harm, sameness, and the ends of answers."""

from __future__ import annotations

from collections.abc import Iterator

from alignpro_lite.eval.answers import Answers, PromptPlace
from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.summary import KindResult
from alignpro_lite.measure.adaptation import Adaptation, describe_adaptation
from alignpro_lite.measure.harm import harm
from alignpro_lite.measure.kinds import PROMPT_KINDS
from alignpro_lite.measure.segments import Segments, describe_segments
from alignpro_lite.measure.statistics import Estimate, mean_difference

ENOUGH_OF_A_KIND = 6
"""Prompts of a kind that has a row: with fewer, no sign-flip test can find anything at 5 %, and the
interval of a bootstrap is far too narrow."""


def results_by_kind(answers: Answers) -> Iterator[KindResult]:
    """Every system but the baseline, on all prompts and on those of each kind, under every judge.

    A system that answers only some data sets is compared on those. A kind of fewer than
    `ENOUGH_OF_A_KIND` prompts has no row.
    """
    lineup = answers.lineup
    for judge in lineup.judges:
        for system in answers.rows:
            if system == lineup.baseline:
                continue
            places = answers.places(ALL, system, lineup.baseline)
            for kind, shared in _by_kind(answers, places).items():
                if len(shared) >= (2 if kind == ALL else ENOUGH_OF_A_KIND):
                    yield _result(answers, kind, system, judge, shared)


def _by_kind(answers: Answers, places: list[PromptPlace]) -> dict[str, list[PromptPlace]]:
    """The prompts of each kind, all of them first, then the known kinds in their order."""
    named = [(place, _kind(answers, place)) for place in places]
    kinds = dict.fromkeys((*PROMPT_KINDS, *(kind for _, kind in named)))
    return {ALL: places} | {kind: [p for p, own in named if own == kind] for kind in kinds}


def _kind(answers: Answers, place: PromptPlace) -> str:
    data, number = place
    return answers.lineup.kind(answers.lineup.prompts[data][number])


def _result(
    answers: Answers, kind: str, system: str, judge: str, places: list[PromptPlace]
) -> KindResult:
    lineup = answers.lineup
    own, plain = (answers.rewards(name, places, judge) for name in (system, lineup.baseline))
    return KindResult(
        kind=kind,
        system=system,
        judge=judge,
        prompts=len(places),
        gain=mean_difference(own, plain, lineup.seed),
        over_constant=_over_constant(answers, system, judge, places),
        harm=harm(own, plain),
    )


def _over_constant(
    answers: Answers, system: str, judge: str, places: list[PromptPlace]
) -> Estimate | None:
    """A system minus the best constant hint, on the prompts that both have answered."""
    constant = answers.lineup.constant
    if constant is None or constant == system or constant not in answers.rows:
        return None
    both = answers.places(ALL, system, constant)
    shared = [place for place in places if place in both]
    if len(shared) < 2:
        return None
    own, fixed = (answers.rewards(name, shared, judge) for name in (system, constant))
    return mean_difference(own, fixed, answers.lineup.seed)


def adaptations(answers: Answers) -> dict[str, Adaptation]:
    """How the rewrites of every system that changes prompts depend on them, one a prompt."""
    found = {}
    for system, rows in answers.rows.items():
        prompts = {row.prompt: (row.sent[0], place) for place, row in rows.items()}
        described = describe_adaptation(
            list(prompts),
            [sent for sent, _ in prompts.values()],
            [_kind(answers, place) for _, place in prompts.values()],
            answers.lineup.seed,
        )
        if described.unchanged < 1:
            found[system] = described
    return found


def segments(answers: Answers) -> dict[str, Segments]:
    """What the answers of every system are like from segment to segment."""
    return {
        system: describe_segments(
            [answer for row in rows.values() for answer in row.answers],
            [cut for row in rows.values() for cut in row.cut],
        )
        for system, rows in answers.rows.items()
    }
