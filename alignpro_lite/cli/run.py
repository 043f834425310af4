"""`alignpro-lite run`: rewrite a prompt and answer it, or a whole file of prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.form import FormOptions, form_options
from alignpro_lite.cli.options import (
    UTF8_TEXT,
    AnswerOptions,
    DrawOptions,
    ModelOptions,
    answer_options,
    draw_options,
    grouped,
    model_options,
    read_prompt,
    show_thinking_option,
)
from alignpro_lite.errors import InputError
from alignpro_lite.registry.text import decode_input

if TYPE_CHECKING:
    from alignpro_lite.aligned import AlignedModel
    from alignpro_lite.batch import Batch
    from alignpro_lite.rewriting.request import Request
    from alignpro_lite.rewriting.result import Choice
    from alignpro_lite.stream import AlignedStream

_NAMED_LINES = 10
RunMode = Literal["auto", "on", "preview", "approve", "off"]


@dataclass(frozen=True)
class DisplayOptions:
    """What is shown of a rewrite and an answer, and in what form."""

    mode: RunMode
    show_rewrite: bool
    show_thinking: bool
    explain: bool
    as_json: bool
    quiet: bool

    def applied(self, request: Request) -> Request:
        """A request that is rewritten as the mode says."""
        asked_for = self.mode in ("on", "preview", "approve")
        return replace(request, rewrite="on") if asked_for else request

    def rewrites(self, request: Request) -> bool:
        """Whether a prompter is needed for such a request."""
        return self.mode != "off" and request.why_kept is None

    @property
    def needs_a_reader(self) -> bool:
        """Whether something is shown or asked in the terminal, as a file of prompts has none."""
        shows = self.show_rewrite or self.show_thinking or self.explain
        return shows or self.mode in ("preview", "approve")


display_options = grouped(
    "display",
    DisplayOptions,
    click.option(
        "--mode",
        type=click.Choice(["auto", "on", "preview", "approve", "off"]),
        default="auto",
        show_default=True,
        help="auto rewrites and says so, except where the answer has a given form; on rewrites "
        "there too; preview also shows the change, approve also asks first, off sends the prompt "
        "as it is.",
    ),
    click.option("--show-rewrite", is_flag=True, help="Show on stderr what the target gets."),
    show_thinking_option,
    click.option("--explain", is_flag=True, help="Show on stderr how the rewrite was chosen."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text."),
    click.option("--quiet", "-q", is_flag=True, help="Print nothing but the answer and errors."),
)


@click.command("run")
@click.argument("prompt", type=UTF8_TEXT, required=False)
@model_options
@draw_options
@answer_options
@form_options
@display_options
@click.option(
    "--input",
    "input_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help='Answer every line of a JSONL file: {"prompt": "..."} or a plain "string".',
)
@click.option(
    "--output",
    "output_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file for the answers to --input, one a line; the same command resumes a stopped run.",
)
def rewrite_and_answer(
    prompt: str | None,
    models: ModelOptions,
    drawing: DrawOptions,
    answer: AnswerOptions,
    form: FormOptions,
    display: DisplayOptions,
    input_file: Path | None,
    output_file: Path | None,
) -> None:
    """Rewrite PROMPT with the prompter and answer it with the target.

    Only the answer goes to stdout, as it is decoded; everything else goes to
    stderr. Without PROMPT, the prompt is read from stdin.
    """
    if (input_file is None) != (output_file is None):
        raise click.UsageError("--input and --output go together.")
    if input_file and output_file:
        if prompt is not None or display.needs_a_reader:
            raise click.UsageError(
                "--input does not go with PROMPT, --show-rewrite, --show-thinking, --explain, "
                "--mode preview or --mode approve."
            )
        request = display.applied(form.applied(answer.request(drawing.settings())))
        rewrites = display.rewrites(request)
        loading = partial(models.load, with_prompter=rewrites, reward=drawing.reward)
        _answer_file(input_file, output_file, loading, request, display.quiet)
        return
    if display.mode == "approve" and not sys.stdin.isatty():
        raise click.UsageError("--mode approve asks in the terminal; pass PROMPT as an argument.")
    from alignpro_lite.decoding.conversation import check_prompt

    text = read_prompt(prompt)
    check_prompt(text)
    if form.log_probs is not None and not display.as_json:
        raise click.UsageError("--log-probs needs --json, or --input.")
    request = display.applied(form.applied(answer.request(drawing.settings())))
    with models.load(with_prompter=display.rewrites(request), reward=drawing.reward) as model:
        if not display.quiet:
            output.show_plan_notes(model)
            if display.mode == "auto" and (why := request.why_kept):
                output.note(f"The prompt is not rewritten: {why}; --mode on rewrites it.")
        stream = model.stream(text, request)
        if display.explain:
            output.show_certificate(stream.prepare().certificate)
        if not _confirm_rewrite(stream, display):
            return
        if display.as_json:
            click.echo(json.dumps(output.result_json(stream.result(), request)))
        else:
            _print_stream(stream, request, display)
        output.require_answer(stream.result(), request)


def _confirm_rewrite(stream: AlignedStream, display: DisplayOptions) -> bool:
    """Show the rewrite as asked; False if the user wants no answer at all."""
    choice = stream.prepare()
    if display.mode in ("preview", "approve"):
        output.show_change(choice)
    elif display.show_rewrite:
        output.show_rewrite(choice)
    elif choice.changed and not display.quiet:
        output.note("The prompt was rewritten; --show-rewrite shows how, --mode off keeps it.")
    elif choice.certificate.drawn and not display.quiet:
        output.show_rewrite(choice)  # it took time: say why it changed nothing
    if display.mode != "approve" or not choice.changed:
        return True
    return _approved(stream, choice)


def _approved(stream: AlignedStream, choice: Choice) -> bool:
    """Ask what to send; False if the user wants no answer at all."""
    reply = click.prompt(
        "Send the rewrite? y sends it, e edits it first, n sends your own prompt, q sends nothing",
        type=click.Choice(["y", "e", "n", "q"]),
        default="y",
        err=True,
    )
    if reply == "n":
        stream.use(choice.prompt)
    if reply == "e":
        edited = _edited(choice.sent)
        if edited is None:
            return _approved(stream, choice)
        output.show_change(stream.use(edited))
    return bool(reply != "q")


def _edited(text: str) -> str | None:
    """A text as the user saved it in their editor; None if they did not save it.

    Raises:
        InputError: The editor cannot be run, or what was saved is not UTF-8.
    """
    try:
        saved = click.edit(text.encode())
    except click.ClickException as error:
        raise InputError(f"{error.format_message()}.", "Set $EDITOR to an editor.") from error
    if saved is None:
        return None
    edited = decode_input(saved, "What was saved").replace("\r\n", "\n")
    return edited if text.endswith("\n") else edited.removesuffix("\n")  # most editors add it


def _print_stream(stream: AlignedStream, request: Request, display: DisplayOptions) -> None:
    output.show_answer(stream.events(), show_thinking=display.show_thinking, quiet=display.quiet)
    if not display.quiet:
        output.show_summary(stream.result(), request)


def _answer_file(
    input_file: Path,
    output_file: Path,
    load: Callable[[], AlignedModel],
    request: Request,
    quiet: bool,
) -> None:
    from alignpro_lite import batch

    with batch.open_batch(input_file, output_file) as job:
        if job.records and not quiet:
            again = f"; {len(job.failed)} failed and are tried again" if job.failed else ""
            found = f"{job.answered} of {len(job.lines)} answers{again}"
            output.note(f"{output_file} already holds {found}.")
        if job.answered < len(job.lines):
            _answer_batch(job, load, request, quiet)


def _answer_batch(
    job: Batch, load: Callable[[], AlignedModel], request: Request, quiet: bool
) -> None:
    from alignpro_lite import batch
    from alignpro_lite.decoding.sampling import stream_seed

    with (
        load() as model,
        click.progressbar(
            length=len(job.lines), label="Answering", file=sys.stderr, show_pos=True, hidden=quiet
        ) as bar,
    ):
        running: set[AlignedStream] = set()

        def answer(number: int, prompt: str) -> dict[str, Any]:
            # The seed depends on the run's seed and the line's number, not on the order.
            numbered = request.with_seed(stream_seed(request.sampling.seed, number))
            stream = model.stream(prompt, numbered)
            running.add(stream)
            try:
                result = stream.result()
            finally:
                running.discard(stream)
            output.require_answer(result, numbered)
            return output.result_json(result, numbered)

        def cancel() -> None:
            for stream in list(running):
                stream.cancel()

        model.target.thinking.values(request.thinking)  # refused once, not line by line
        if not quiet:
            output.show_plan_notes(model)
        bar.update(job.answered)
        failed = []
        for record in batch.answer_lines(job, answer, cancel):
            if "error" in record:
                failed.append(job.places[record["line"]])
            bar.update(1)
    if failed:
        raise _failed_lines(failed, job)


def _failed_lines(places: list[int], job: Batch) -> InputError:
    named = ", ".join(map(str, places[:_NAMED_LINES]))
    more = f" and {len(places) - _NAMED_LINES} more" if len(places) > _NAMED_LINES else ""
    return InputError(
        f"{len(places)} of {len(job.lines)} lines could not be answered: line {named}{more}.",
        f'Their "error" in {job.output} says why; correct them and run it again.',
    )
