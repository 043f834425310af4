"""What an evaluation says in sentences, above the tables of its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignpro_lite.eval.lineup import ALL
from alignpro_lite.eval.report.tables import (
    Shown,
    number,
    percent,
    show_estimate,
    show_p,
    show_share,
    tone_of,
    tone_of_gains,
)
from alignpro_lite.eval.summary import JudgeAccuracy, Summary, Versus

_FINDINGS = {
    "better": "finds it better",
    "worse": "finds it worse",
    "same": "finds no difference",
}


def verdicts(summary: Summary) -> tuple[Shown, ...]:
    """Say for every other system whether it beats the baseline beyond the noise.

    A system that answers only some data sets gets a verdict for each of them. What a reader could
    get for less, and judges that cannot judge, have sentences of their own.
    """
    others = [name for name in summary.systems if name != summary.baseline]
    return (
        *(verdict for name in others for verdict in _verdicts(summary, name)),
        *_beyond_constant(summary),
        *_against_controls(summary),
        *_harmful(summary),
        *_at_equal_calls(summary),
        *_weak_oracle(summary),
        *(
            verdict
            for judge in summary.judges
            for verdict in judge_verdicts(judge, summary.accuracies)
        ),
    )


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
    tone = tone_of(found)
    finding = {
        "better": f"{system} beats {baseline} beyond the noise",
        "worse": f"{system} is worse than {baseline} beyond the noise",
        "same": f"{system} does not differ from {baseline} beyond the noise",
    }[tone]
    gain = found.gain
    numbers = (
        f"its mean reward is {number(abs(gain.value))} {'lower' if gain.value < 0 else 'higher'} "
        f"(95 % interval {number(gain.low, signed=True)} to {number(gain.high, signed=True)}, "
        f"p {show_p(found.p_adjusted)} after Holm's correction)"
    )
    echoes = [
        f"; {judge} {_FINDINGS[tone_of(second)]}"
        for judge in summary.judges[1:]
        if (second := summary.against_baseline(found.data, system, judge))
    ]
    where = "" if found.data == summary.overall else f"On {found.data}, "
    return Shown(f"{where}{finding}: {numbers}{''.join(echoes)}.", tone=tone)


def _judged(summary: Summary) -> list[str]:
    """The systems that are no controls."""
    plain = {summary.baseline, *summary.controls}
    return [name for name in summary.systems if name not in plain]


def _beyond_constant(summary: Summary) -> Iterator[Shown]:
    """Every other system beside one hint for all prompts."""
    judge, constant = summary.judges[0], summary.constant
    for system in _judged(summary):
        found = constant and summary.difference(system, constant, judge)
        if found:
            shown, tone = show_estimate(found.gain, signed=True), tone_of_gains([found.gain])
            finding = {
                "better": "is worth more than one hint for all prompts",
                "worse": "is worth less than one hint for all prompts",
                "same": "shows nothing beyond one hint for all prompts",
            }[tone]
            yield Shown(
                f"{system} {finding}: {shown.text} against {constant} ({shown.detail}).", tone=tone
            )


def _harmful(summary: Summary) -> Iterator[Shown]:
    """Systems under which all answers to a prompt get worse more often than by luck."""
    for found in summary.by_kind:
        is_shown = found.judge == summary.judges[0] and found.kind == ALL
        harm = found.harm
        is_harmful = harm.each.low > harm.each_by_luck or harm.every.low > harm.every_by_luck
        if is_shown and is_harmful and found.system in _judged(summary):
            yield Shown(
                f"{found.system} does harm: on {show_share(harm.each).text} of {found.prompts} "
                f"prompts each answer is worse than {summary.baseline}'s, where luck makes "
                f"{percent(harm.each_by_luck).text}.",
                tone="worse",
            )


def _against_controls(summary: Summary) -> Iterator[Shown]:
    """Every other system beside what needs no training and no search."""
    judge = summary.judges[0]
    others = [name for name in summary.controls if name != summary.constant]
    for system in _judged(summary):
        found = [summary.difference(system, name, judge) for name in others]
        shown = [
            f"{show_estimate(pair.gain, signed=True).text} against {pair.second} "
            f"({show_estimate(pair.gain, signed=True).detail})"
            for pair in found
            if pair is not None
        ]
        if shown:
            yield Shown(
                f"{system} beside what needs no training, on the same prompts: {', '.join(shown)}.",
                tone=tone_of_gains([pair.gain for pair in found if pair is not None]),
            )


def _at_equal_calls(summary: Summary) -> Iterator[Shown]:
    for found in summary.equal_calls:
        if found.judge == summary.judges[0]:
            best, difference = (
                show_estimate(value, signed=True) for value in (found.best, found.difference)
            )
            yield Shown(
                f"{found.system} asks {found.calls} times for an answer. The best of as many "
                f"answers to the unchanged prompt gains {best.text} ({best.detail}); "
                f"{found.system} minus that is {difference.text} ({difference.detail}).",
                tone=tone_of_gains([found.difference]),
            )


def _weak_oracle(summary: Summary) -> Iterator[Shown]:
    """An oracle that plain best of n beats is no measure of what alignment can reach."""
    judge, oracle = summary.judges[0], summary.oracle
    found = oracle and summary.against_baseline(summary.overall, oracle, judge)
    if not found:
        return
    for best in summary.frontier:
        if best.judge == judge and best.gain.value >= found.gain.value:
            yield Shown(
                f"{oracle} gains {number(found.gain.value, signed=True)}, no more than the best of "
                f"{best.calls} answers to the unchanged prompt "
                f"({number(best.gain.value, signed=True)}): a share of its gain says little.",
                tone="worse",
            )
            return


def judge_verdicts(judge: str, accuracies: Sequence[JudgeAccuracy]) -> Iterator[Shown]:
    """Say where a judge is below length, and where nothing is known about it.

    Args:
        judge: Name of the judge.
        accuracies: Those of all judges.
    """
    rows = [found for found in accuracies if found.judge == judge]
    below = [
        f"{found.data} ({found.accuracy.value:.3f} of {found.pairs} pairs right, the longer answer "
        f"{found.length:.3f})"
        for found in rows
        if found.is_below_length and found.accuracy is not None
    ]
    if below:
        yield Shown(
            f"The judge {judge} is below length: always taking the longer answer is right more "
            f"often on {', '.join(below)}.",
            tone="worse",
        )
    unknown = [found.part for found in rows if found.accuracy is None]
    if unknown:
        yield Shown(
            f"How often the judge {judge} is right is not known: its {', '.join(unknown)} was not "
            "measured.",
            tone="same",
        )
