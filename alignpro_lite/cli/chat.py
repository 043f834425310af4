"""`alignpro-lite chat`: a conversation in the terminal."""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from alignpro_lite.cli import output
from alignpro_lite.cli.form import ConstraintOptions, constraint_options
from alignpro_lite.cli.options import (
    AnswerOptions,
    DrawOptions,
    ModelOptions,
    answer_options,
    draw_options,
    model_options,
    show_thinking_option,
)
from alignpro_lite.errors import AlignProError, ContextOverflowError, InputError
from alignpro_lite.registry.text import decode_input

if TYPE_CHECKING:
    from alignpro_lite.aligned import AlignedModel
    from alignpro_lite.decoding.conversation import Message
    from alignpro_lite.rewriting.request import Request
    from alignpro_lite.rewriting.result import Choice

_LEAVING = ("/quit", "/exit")
_ALONE = (*_LEAVING, "/reset", "/help")
_TYPO = 0.72
"""How alike a word and a command must be, by difflib, for the word to be a slip of the hand."""

HELP = """\
/rewrite        show how the last prompt was rewritten
/rewrite off    send prompts as they are; /rewrite on rewrites them
/reset          forget the conversation
/save FILE      write the conversation to a new JSON file
/help           show this help
/quit           leave, like Ctrl-D
//...           send a line that begins with /; a space before it does the same
Ctrl-C          stop the answer, or clear the line"""


@click.command()
@model_options
@draw_options
@answer_options
@constraint_options
@show_thinking_option
def chat(
    models: ModelOptions,
    drawing: DrawOptions,
    answer: AnswerOptions,
    constraint: ConstraintOptions,
    show_thinking: bool,
) -> None:
    """Talk with the target; every prompt is rewritten first.

    /help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.
    """
    _enable_line_editing()
    request = constraint.applied(answer.request(drawing.settings()))
    with models.load(reward=drawing.reward) as model:
        model.target.thinking.values(request.thinking)  # refused once, not line by line
        output.show_plan_notes(model)
        if why := request.why_kept:
            output.note(f"Prompts are not rewritten: {why}; /rewrite on rewrites them.")
        click.echo("/help lists the commands, Ctrl-D leaves.", err=True)
        Conversation(model, request, show_thinking=show_thinking).loop()


class Conversation:
    """The state of a chat and its commands."""

    def __init__(
        self, model: AlignedModel, request: Request, *, show_thinking: bool = False
    ) -> None:
        self._model = model
        self._request = request
        self._show_thinking = show_thinking
        self._history: list[Message] = []
        self._turn = 0
        self._has_left = False
        self._last: Choice | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "/rewrite": self._rewrite,
            "/reset": self._reset,
            "/save": self._save,
            "/help": lambda _: click.echo(HELP, err=True),
            **dict.fromkeys(_LEAVING, self._leave),
        }

    def loop(self) -> None:
        """Read lines until the user leaves; an error ends the line, not the chat."""
        while not self._has_left and (line := _read_line()) is not None:
            try:
                self.take(line)
            except KeyboardInterrupt:
                click.echo("\n[stopped]", err=True)
            except BrokenPipeError:
                raise  # the reader of stdout has left
            except ContextOverflowError as error:
                cure = "/reset forgets the conversation; a larger --ctx holds a longer one."
                click.echo(f"Error: {error.problem} {cure}", err=True)
            except AlignProError as error:
                click.echo(f"Error: {error}", err=True)
            except OSError as error:
                click.echo(f"Error: {error.filename or ''} {error.strerror}.", err=True)

    def take(self, line: str) -> None:
        """Run a command or answer a prompt; an empty line does nothing.

        Raises:
            AlignProError: The line may be meant as a command but is none, or the prompt cannot be
                answered.
        """
        name, _, argument = line.strip().partition(" ")
        if not name:
            return
        if not line.startswith("/"):
            self._answer(line)
        elif line.startswith("//"):
            self._answer(line[1:])
        elif name not in self._commands:
            _refuse_typo(name, argument, self._commands)
            self._answer(line)
        elif argument and name in _ALONE:
            raise InputError(f"{name} stands alone, found {argument!r} behind it.", _as_text(line))
        else:
            self._commands[name](argument.strip())

    def _answer(self, prompt: str) -> None:
        from alignpro_lite.decoding.conversation import Message
        from alignpro_lite.decoding.sampling import stream_seed

        request = replace(
            self._request,
            history=tuple(self._history),
        ).with_seed(stream_seed(self._request.sampling.seed, self._turn))
        stream = self._model.stream(prompt, request)
        try:
            if stream.prepare().changed:
                click.echo("[rewritten; /rewrite shows how]", err=True)
            output.show_answer(stream.events(), show_thinking=self._show_thinking, quiet=False)
        except KeyboardInterrupt:
            stream.cancel()
            click.echo("\n[stopped]", err=True)
        result = stream.result()
        self._last = result.choice
        output.require_answer(result, request)
        output.show_cut(result, request)
        if result.answer:
            # What the target read and wrote, so that its cache of the conversation stays valid.
            # Its thought stands apart: templates leave it out, or write it in their own way.
            self._history += [
                Message("user", result.choice.sent),
                Message("assistant", result.answer, result.reasoning),
            ]
            self._turn += 1

    def _rewrite(self, argument: str) -> None:
        if argument in ("on", "off"):
            self._request = replace(self._request, rewrite="on" if argument == "on" else "off")
            click.echo(f"Prompts are {'' if argument == 'on' else 'not '}rewritten.", err=True)
        elif argument:
            raise InputError(
                f"/rewrite takes on or off, found {argument!r}.", _as_text(f"/rewrite {argument}")
            )
        elif self._last is None:
            click.echo("No prompt has been answered yet.", err=True)
        else:
            output.show_change(self._last)

    def _reset(self, _: str) -> None:
        self._history.clear()
        self._last = None
        click.echo("The conversation is forgotten.", err=True)

    def _leave(self, _: str) -> None:
        self._has_left = True

    def _save(self, argument: str) -> None:
        if not argument:
            raise InputError("/save needs a file name.", "Type, for example, /save talk.json.")
        path = Path(os.path.expanduser(argument))  # noqa: PTH111 - pathlib raises for ~nobody
        messages = [turn.as_dict() for turn in self._history]
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump({"messages": messages}, file, ensure_ascii=False, indent=2)
                file.write("\n")
        except FileExistsError as error:
            raise InputError(f"{path} exists already.", "Choose another name.") from error
        click.echo(f"Saved {len(messages)} messages to {path}.", err=True)


def _refuse_typo(name: str, argument: str, commands: Iterable[str]) -> None:
    """Ask about an unknown command, so that a slip is not sent; paths and sentences are text."""
    near = difflib.get_close_matches(name.lower(), commands, n=1, cutoff=_TYPO)
    if near:
        raise InputError(
            f"There is no command {name}. Did you mean {near[0]}?", _as_text(f"{name} {argument}")
        )
    if not argument and re.fullmatch(r"/[\w?-]*", name):
        raise InputError(f"There is no command {name}; /help lists them.", _as_text(name))


def _as_text(line: str) -> str:
    return f"To send it as text, type /{line.strip()}"


def _read_line() -> str | None:
    """One line from the user; None when they leave. Ctrl-C gives an empty line.

    Raises:
        InputError: What is piped in is not UTF-8; in a terminal, the user is asked again.
    """
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except KeyboardInterrupt:
            click.echo(err=True)
            return ""
        except EOFError:
            click.echo(err=True)
            return None
        try:
            return decode_input(line.encode("utf-8", "surrogateescape"), "Stdin")
        except InputError as error:
            if not sys.stdin.isatty():
                raise
            click.echo(f"Error: {error}", err=True)


def _enable_line_editing() -> None:
    """Turn on arrow keys and history in `input`, if this Python has readline."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return  # Windows: the console edits lines itself
