"""`alignpro-lite rewrite`: show rewrites of a prompt without answering it."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.options import (
    UTF8_TEXT,
    cache_option,
    device_option,
    preset_option,
    prompter_option,
    read_prompt,
    target_option,
)

if TYPE_CHECKING:
    from alignpro_lite.prompter.prompter import Rewrite
    from alignpro_lite.rewriting.spans import Protected


@click.command("rewrite")
@click.argument("prompt", type=UTF8_TEXT, required=False)
@preset_option
@prompter_option
@target_option
@device_option
@cache_option
@click.option(
    "--count", "-n", type=click.IntRange(1, 16), default=1, show_default=True, help="How many."
)
@click.option(
    "--temperature",
    type=float,
    show_default="the prompter's",
    help="0 always takes the most likely token.",
)
@click.option("--seed", type=int, help="Repeats a run.  [default: a new seed each time]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per rewrite.")
def show_rewrites(
    prompt: str | None,
    preset: str,
    prompter: str,
    target: str,
    device: Literal["auto", "cuda", "cpu"],
    cache: Path | None,
    count: int,
    temperature: float | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Sample rewrites of PROMPT and print them without answering it.

    Loads only the prompter; --target says which model --prompter self is. Without
    PROMPT, the prompt is read from stdin. Lines of three dashes separate several
    rewrites.
    """
    from alignpro_lite.cli.meter import Meter
    from alignpro_lite.decoding.cancellation import Cancellation
    from alignpro_lite.decoding.conversation import check_prompt
    from alignpro_lite.decoding.sampling import MAX_SEED
    from alignpro_lite.loading import open_prompter
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.rewriting.candidates import would_add_nothing
    from alignpro_lite.rewriting.plain import rewrite_json
    from alignpro_lite.rewriting.spans import protect

    protected = protect(read_prompt(prompt))
    check_prompt(protected.prompt)
    with Meter() as meter:
        store = ModelStore.open(cache, preset)
        opened = open_prompter(prompter, target, store, device, meter)
    with opened as loaded:
        usual = loaded.profile.sampling
        sampling = replace(
            usual,
            temperature=usual.temperature if temperature is None else temperature,
            seed=secrets.randbelow(MAX_SEED) if seed is None else seed,
        )
        rewrites = loaded.rewrite(protected.prompt, count, sampling)
        # JSON has no remark that it would be for.
        in_doubt = not as_json and would_add_nothing(loaded, protected.prompt, (), Cancellation())
    for number, rewritten in enumerate(rewrites):
        if as_json:
            click.echo(json.dumps(rewrite_json(rewritten)))
            continue
        if number:
            click.echo("---")
        click.echo(rewritten.text)
        drawn = f"log-probability {rewritten.log_prob:.2f}, {len(rewritten.tokens)} tokens"
        output.note(drawn + _remark(protected, rewritten, in_doubt=in_doubt))


def _remark(protected: Protected, rewritten: Rewrite, *, in_doubt: bool) -> str:
    """What cannot be seen of a rewrite: that it is the prompt itself, or will not be used."""
    from alignpro_lite.rewriting.draw import IN_DOUBT
    from alignpro_lite.rewriting.refusal import refusal_of

    if refusal := refusal_of(protected, rewritten):
        return f" (`run` would not use it: {refusal.reason})"
    if rewritten.text != protected.prompt:
        return f" (`run` would not use it: {IN_DOUBT})" if in_doubt else ""
    why = "" if rewritten.output.strip() else "the hint is empty: "
    return f" ({why}the prompt goes out as it is)"
