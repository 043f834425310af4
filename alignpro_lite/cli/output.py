"""What commands print: answers to stdout, everything else to stderr."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from alignpro_lite.aligned import AlignedModel, Choice, Request, Result
    from alignpro_lite.prompter import Rewrite


def note(text: str) -> None:
    """One line for the user on stderr."""
    click.echo(text, err=True)


def show_plan_notes(model: AlignedModel) -> None:
    """What the user should know about the devices."""
    for sentence in model.plan.notes:
        note(f"Note: {sentence}")


def result_json(result: Result, request: Request) -> dict[str, Any]:
    """A finished answer as plain data for `--json`."""
    choice, timings = result.choice, result.timings
    return {
        "prompt": choice.prompt,
        "sent": choice.sent,
        "changed": choice.changed,
        "reason": choice.reason,
        "rewrite": rewrite_json(choice.rewrite) if choice.rewrite else None,
        "answer": result.answer,
        "finish_reason": result.finish_reason,
        "answer_tokens": result.answer_tokens,
        "seed": request.sampling.seed,
        "seconds": {
            "rewrite": round(timings.rewrite, 3),
            "first_token": round(timings.first_token, 3),
            "total": round(timings.total, 3),
        },
    }


def rewrite_json(rewrite: Rewrite) -> dict[str, Any]:
    """A sampled rewrite as plain data."""
    return {
        "text": rewrite.text,
        "output": rewrite.output,
        "tokens": len(rewrite.tokens),
        "log_prob": round(rewrite.log_prob, 6),
        "log_proposal": round(rewrite.log_proposal, 6),
        "finish_reason": rewrite.finish_reason,
    }


def show_rewrite(choice: Choice) -> None:
    """What the target gets, or why the prompt stayed as it was."""
    if choice.changed:
        note(click.style("Rewrite: ", bold=True) + choice.sent)
    else:
        note(click.style("Prompt unchanged: ", bold=True) + choice.reason)


def show_change(choice: Choice) -> None:
    """The difference between prompt and rewrite: [-removed-] and {+added+} words."""
    if choice.changed:
        note(click.style("Change: ", bold=True) + word_diff(choice.prompt, choice.sent))
    else:
        note(click.style("Prompt unchanged: ", bold=True) + choice.reason)


def word_diff(before: str, after: str) -> str:
    """Mark what changed between two texts, word by word, white space kept."""
    old, new = (re.findall(r"\S+|\s+", text) for text in (before, after))
    parts = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new).get_opcodes():
        gone, come = "".join(old[a:b]), "".join(new[c:d])
        if tag == "equal":
            parts.append(gone)
            continue
        if gone:
            parts.append(click.style(f"[-{gone}-]", fg="red"))
        if come:
            parts.append(click.style(f"{{+{come}+}}", fg="green"))
    return "".join(parts)


def show_summary(result: Result, request: Request) -> None:
    """How long it took, and whether the answer was cut."""
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
    if result.finish_reason == "length":
        note(f"The answer was cut at --max-tokens {request.max_tokens}.")
