"""What commands print: answers to stdout, everything else to stderr."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from alignpro_lite.errors import NoAnswerError

if TYPE_CHECKING:
    from alignpro_lite.aligned import AlignedModel
    from alignpro_lite.decoding.log_probs import TokenLogProb
    from alignpro_lite.events import Event
    from alignpro_lite.rewriting.certificate import Certificate, Change, RewardEstimate
    from alignpro_lite.rewriting.request import Request
    from alignpro_lite.rewriting.result import Choice, Result


_NOT_SHOWN = ("Cc", "Cs")
"""Unicode's categories of control characters, and of bytes in a file name that are not UTF-8."""


def one_line(text: str) -> str:
    """A text as one line, without what a terminal obeys.

    Names in it come from files, and messages of native libraries or of a server, which may contain
    line breaks.
    """
    return "".join(
        ascii(letter)[1:-1] if unicodedata.category(letter) in _NOT_SHOWN else letter
        for letter in " ".join(text.split())
    )


def note(text: str) -> None:
    """Print one line for the user on stderr."""
    click.echo(text, err=True)


def show_plan_notes(model: AlignedModel) -> None:
    """Print what the user should know about the devices, and about the prompter."""
    for sentence in model.plan.notes:
        note(f"Note: {one_line(sentence)}")


def result_json(result: Result, request: Request) -> dict[str, Any]:
    """A finished answer as plain data for `--json`."""
    from alignpro_lite.rewriting.plain import certificate_json, rewrite_json

    choice, timings = result.choice, result.timings
    log_probs = {} if request.log_probs is None else {"log_probs": log_probs_json(result.log_probs)}
    return {
        "prompt": choice.prompt,
        "sent": choice.sent,
        "changed": choice.changed,
        "reason": choice.reason,
        "rewrite": rewrite_json(choice.rewrite) if choice.rewrite else None,
        "certificate": certificate_json(choice.certificate),
        "answer": result.answer,
        "reasoning": result.reasoning,
        "finish_reason": result.finish_reason,
        "answer_tokens": result.answer_tokens,
        "seed": request.sampling.seed,
        "seconds": {
            "rewrite": round(timings.rewrite, 3),
            "scoring": round(choice.certificate.scoring_seconds, 3),
            "first_token": round(timings.first_token, 3),
            "total": round(timings.total, 3),
        },
    } | log_probs


def log_probs_json(tokens: Sequence[TokenLogProb]) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities as plain data for `--json`."""
    return [
        _token_json(token) | {"alternatives": [_token_json(other) for other in token.alternatives]}
        for token in tokens
    ]


def _token_json(token: TokenLogProb) -> dict[str, Any]:
    return {
        "token": token.token,
        "text": token.text,
        "bytes": list(token.piece),
        "log_prob": round(token.log_prob, 6),
    }


def show_rewrite(choice: Choice) -> None:
    """Print what the target gets, or why the prompt is unchanged."""
    if choice.changed:
        note(click.style("Rewrite: ", bold=True) + choice.sent)
    else:
        note(click.style("Prompt unchanged: ", bold=True) + choice.reason)


def show_change(choice: Choice) -> None:
    """Print the difference between prompt and rewrite: [-removed-] and {+added+} words."""
    if choice.changed:
        note(click.style("Change: ", bold=True) + marked(choice.certificate.changes))
    else:
        note(click.style("Prompt unchanged: ", bold=True) + choice.reason)


def marked(changes: tuple[Change, ...]) -> str:
    """The difference as one text: [-removed-] and {+added+} words."""
    marks = {"removed": ("[-{}-]", "red"), "added": ("{{+{}+}}", "green")}
    return "".join(
        click.style(marks[change.kind][0].format(change.text), fg=marks[change.kind][1])
        if change.kind in marks
        else change.text
        for change in changes
    )


def show_certificate(certificate: Certificate) -> None:
    """Print the certificate as a small table."""
    rows = list(_certificate_rows(certificate))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        note(f"{name:<{width}}  {text}")


def _certificate_rows(certificate: Certificate) -> Iterator[tuple[str, str]]:
    refused = ", ".join(f"{count} {kind}" for kind, count in certificate.refused.items())
    yield "choice", certificate.reason
    yield "candidates", f"{certificate.drawn} drawn, {refused or 'none'} refused"
    for phrase in certificate.dropped:
        yield "not scored", phrase
    if certificate.answers:
        yield "scored", f"{certificate.scored} with {certificate.answers} answers each"
        if certificate.rivals:
            yield (
                "judged",
                f"each answer against {certificate.rivals} answers to your prompt, in both orders",
            )
    if certificate.strength is not None:
        yield "λ", f"{certificate.strength:g}"
    if (found := certificate.diagnostics) is not None:
        yield (
            "effective",
            f"{found.ess:.1f} samples, distance to ρ* at most about {found.distance:.2f}",
        )
        yield "reliability", f"{found.reliability:.0%} of the differences between R̂ are not noise"
        error = (
            f" ± {found.log_z_error:.2f}"
            if math.isfinite(found.log_z_error)
            else ", unreliable: too few effective samples"
        )
        yield "log Z", f"{found.log_z:.2f}{error}"
        yield "KL", f"{found.kl:.2f} nats"
        yield "value", f"{found.objective:.3f}, of which reward {found.reward:.3f}"
    if certificate.acceptance is not None:
        yield "acceptance", f"{certificate.acceptance:.0%}"
    for name, reward in (("R̂ before", certificate.before), ("R̂ after", certificate.after)):
        if reward is not None:
            yield name, _reward_line(reward)
    if (gain := certificate.gain) is not None:
        yield "gain", f"{gain.expected:+.3f} expected from all answers"
        if math.isfinite(gain.estimate):
            yield (
                "fresh gain",
                f"{gain.estimate:+.3f}, above {gain.lower:+.3f} with probability 0.95",
            )
    if certificate.target_tokens:
        yield (
            "cost",
            f"{certificate.target_tokens} tokens of the target, "
            f"{certificate.scoring_seconds:.1f} s of scoring",
        )
    for sentence in certificate.notes:
        yield "note", sentence
    yield "change", marked(certificate.changes)


def _reward_line(reward: RewardEstimate) -> str:
    known = math.isfinite(reward.low)
    interval = f"{reward.low:.3f} to {reward.high:.3f}" if known else "no two rewards differ"
    return f"{reward.mean:.3f} ({interval}), {reward.answers} answers"


def show_answer(events: Iterable[Event], *, show_thinking: bool, quiet: bool) -> None:
    """Print an answer as it comes: alone on stdout, what was thought before it on stderr.

    Args:
        events: Among them pieces of the thought and of the answer.
        show_thinking: Whether the thought is printed, dimmed.
        quiet: Whether to keep silent about a thought that is not printed.
    """
    from alignpro_lite.events import Reasoning, Text

    thinking = answered = False
    for event in events:
        if isinstance(event, Reasoning):
            if show_thinking:
                click.echo(click.style(event.text, dim=True), err=True, nl=False)
            elif not (thinking or quiet):
                note(click.style("Thinking; --show-thinking shows it.", dim=True))
            thinking = True
        elif isinstance(event, Text):
            if thinking and show_thinking:
                note("")
            thinking, answered = False, True
            click.echo(event.text, nl=False)
    if thinking and show_thinking:
        note("")
    if answered or not thinking:
        click.echo()


def require_answer(result: Result, request: Request) -> None:
    """Refuse a result that has nothing but a thought: an empty answer would pass for one.

    Raises:
        NoAnswerError: The target thought up to --max-tokens, or ended behind its thought.
    """
    if not result.thought_only or result.finish_reason == "cancelled":
        return
    # Not every template has the switch; the target refuses it where there is none.
    switch = "" if request.thinking == "off" else ", or try --thinking off"
    if result.finish_reason == "length":
        limit = f"--max-tokens {request.max_tokens}"
        raise NoAnswerError(
            f"The target was still thinking at {limit}, so there is no answer.",
            f"Raise it{switch}.",
        )
    raise NoAnswerError(
        "The target thought, and ended without an answer.", f"Try another --seed{switch}."
    )


def show_cut(result: Result, request: Request) -> None:
    """Say so if --max-tokens cut the answer."""
    if result.finish_reason == "length" and not result.thought_only:
        note(f"The answer was cut at --max-tokens {request.max_tokens}.")


def show_summary(result: Result, request: Request) -> None:
    """Print how long it took, and whether the answer was cut."""
    timings = result.timings
    decoding = timings.total - timings.first_token
    speed = f", {(result.answer_tokens - 1) / decoding:.0f} tok/s" if decoding > 0 else ""
    note(
        click.style(
            f"rewrite {timings.rewrite:.2f} s, first token {timings.first_token:.2f} s, "
            f"{result.answer_tokens} tokens in {timings.total:.2f} s{speed}, "
            f"seed {request.sampling.seed}",
            dim=True,
        )
    )
    show_cut(result, request)
