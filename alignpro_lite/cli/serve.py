"""`alignpro-lite serve`: answer any client of OpenAI's API, over HTTP."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from alignpro_lite.cli import output
from alignpro_lite.cli.extras import require_extra
from alignpro_lite.cli.options import (
    AnswerOptions,
    DrawOptions,
    ModelOptions,
    answer_options,
    draw_options,
    grouped,
    model_options,
)
from alignpro_lite.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from alignpro_lite.serve.admission import Limits
    from alignpro_lite.serve.asked import Usual
    from alignpro_lite.serve.completions import ServedModel
    from alignpro_lite.serve.guarding import Rules
    from alignpro_lite.serve.lifetime import Lifetime
    from alignpro_lite.serve.listening import Address
    from alignpro_lite.serve.upstream import Elsewhere

KEY_VARIABLE = "ALIGNPRO_LITE_API_KEY"
_DEFAULT_PORT = 8765


@dataclass(frozen=True)
class PlaceOptions:
    """Where the server listens, and how long it lives."""

    host: str
    port: int
    unix_socket: Path | None
    parent_pid: int | None
    until_stdin_closes: bool

    def address(self) -> Address:
        """The library's address."""
        from alignpro_lite.serve.listening import Address

        return Address(self.host, self.port, self.unix_socket)

    def lifetime(self) -> Lifetime:
        """How long the server lives; it may end from now on."""
        from alignpro_lite.serve.lifetime import Lifetime

        lifetime = Lifetime()
        if self.parent_pid is not None:
            lifetime.follow_process(self.parent_pid)
        if self.until_stdin_closes:
            lifetime.follow_stream(sys.stdin.buffer)
        return lifetime

    @property
    def needs_token(self) -> bool:
        """Whether any program of this machine could find the server, which is for one alone."""
        return self.port == 0 and self.unix_socket is None

    @property
    def is_sidecar(self) -> bool:
        """Whether a program, not a person, is told where the server listens."""
        return self.port == 0 or self.unix_socket is not None


@dataclass(frozen=True)
class SafetyOptions:
    """Whom the server answers, and how much it takes on."""

    api_key_file: Path | None
    allow_host: tuple[str, ...]
    cors_origin: tuple[str, ...]
    parallel: int
    queue: int
    timeout: float
    max_body: int

    def limits(self) -> Limits:
        """The library's limits."""
        from alignpro_lite.serve.admission import Limits

        return Limits(self.parallel, self.queue, self.timeout, self.max_body)

    def rules(self, address: Address, token: str | None) -> Rules:
        """The library's rules.

        Args:
            address: Where the server listens.
            token: A key that was made for this run; None if there is none.

        Raises:
            InputError: Others could reach the server, and there is no key.
        """
        from alignpro_lite.serve.guarding import Rules

        key = self.key() or token
        if key is None and not address.is_loopback:
            raise InputError(
                f"Other machines can reach {address.host}, so the server needs a key.",
                f"Put a key into a file and pass --api-key-file, or set {KEY_VARIABLE}.",
            )
        hosts = frozenset(name.lower() for name in (address.host, *self.allow_host))
        return Rules(hosts, frozenset(self.cors_origin), key, not address.is_loopback)

    def key(self) -> str | None:
        """The key that clients must send, if one was given.

        Raises:
            InputError: There is one that cannot be used.
        """
        where, key = f"${KEY_VARIABLE}", os.environ.get(KEY_VARIABLE)
        if self.api_key_file is not None:
            where, key = str(self.api_key_file), self.api_key_file.read_text("utf-8", "replace")
        if key is None:
            return None
        key = key.strip()
        if len(key) < 16 or not (key.isascii() and key.isprintable()) or " " in key:
            raise InputError(
                f"The key in {where} must have 16 characters or more, of ASCII, without spaces.",
                "Make one with `openssl rand -hex 32`.",
            )
        return key


@dataclass(frozen=True)
class UpstreamOptions:
    """Another server that answers."""

    upstream: str | None
    upstream_key_variable: str | None

    def server(self, *, is_open: bool) -> Elsewhere:
        """The library's description of it.

        Args:
            is_open: Whether clients send this server no key, so that theirs is for the other one.

        Raises:
            InputError: The address or the key cannot be used.
        """
        from alignpro_lite.serve.upstream import Elsewhere
        from alignpro_lite.target.endpoint import authorization

        url = self.upstream or ""
        return Elsewhere(url, authorization(url, self.upstream_key_variable), is_open)


place_options = grouped(
    "place",
    PlaceOptions,
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        help="The address to listen at. One that other machines can reach needs a key.",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=_DEFAULT_PORT,
        show_default=True,
        help="0 takes a free one, and prints a line of JSON with the address and a token.",
    ),
    click.option(
        "--unix-socket",
        metavar="PATH",
        type=click.Path(path_type=Path, dir_okay=False),
        help="Listen at a Unix socket instead, which this user alone can open.",
    ),
    click.option(
        "--parent-pid",
        type=click.IntRange(min=1),
        metavar="PID",
        help="End within 2 seconds of the end of this process, also if it is killed.",
    ),
    click.option(
        "--until-stdin-closes", is_flag=True, help="End within 2 seconds of the end of stdin."
    ),
)

safety_options = grouped(
    "safety",
    SafetyOptions,
    click.option(
        "--api-key-file",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False, exists=True),
        help="A file with the key that clients must send.  "
        f"[env var: {KEY_VARIABLE} holds the key itself]",
    ),
    click.option(
        "--allow-host",
        multiple=True,
        metavar="NAME",
        help="Another name of this server, as it stands in the Host of requests; may be repeated.",
    ),
    click.option(
        "--cors-origin",
        multiple=True,
        metavar="ORIGIN",
        help="Pages of this origin may use the server, such as https://app.example or "
        "tauri://localhost; may be repeated.",
    ),
    click.option(
        "--parallel",
        type=click.IntRange(1, 64),
        default=8,
        show_default=True,
        help="Requests that are answered at once.",
    ),
    click.option(
        "--queue",
        type=click.IntRange(min=0),
        default=32,
        show_default=True,
        help="Requests that may wait; more are told to try later (429).",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        metavar="SECONDS",
        help="After which a request fails, its wait included.",
    ),
    click.option(
        "--max-body",
        type=click.IntRange(min=1024),
        default=4 << 20,
        show_default=True,
        metavar="BYTES",
        help="The longest request.",
    ),
)


upstream_options = grouped(
    "elsewhere",
    UpstreamOptions,
    click.option(
        "--upstream",
        metavar="URL",
        help="Let another server answer, such as http://127.0.0.1:11434/v1: prompts are rewritten "
        "and sent there, and no target is loaded.",
    ),
    click.option(
        "--upstream-key-variable",
        metavar="NAME",
        help="The environment variable with the key of that server.",
    ),
)


@click.command("serve")
@model_options
@draw_options
@answer_options
@place_options
@safety_options
@upstream_options
@click.option(
    "--alias", multiple=True, metavar="NAME", help="Another name of the model; may be repeated."
)
def serve_models(
    models: ModelOptions,
    drawing: DrawOptions,
    answer: AnswerOptions,
    place: PlaceOptions,
    safety: SafetyOptions,
    elsewhere: UpstreamOptions,
    alias: tuple[str, ...],
) -> None:
    """Answer clients of OpenAI's API; every prompt is rewritten first.

    The page at / is a chat. What clients leave out is taken from the options of
    draws and answers. Ctrl-C ends the server.
    """
    require_extra("serve")
    from alignpro_lite.serve.asked import Usual
    from alignpro_lite.serve.completions import ServedModel
    from alignpro_lite.serve.listening import bound, listen

    address = place.address()
    token = secrets.token_urlsafe(32) if place.needs_token and safety.key() is None else None
    rules = safety.rules(address, token)
    usual = Usual(answer.request(drawing.settings()), repeats=answer.seed is not None)
    if elsewhere.upstream is not None:
        opened = _rewriting(models, elsewhere, usual, safety, rules)
    else:
        served = ServedModel(_model_name(models), alias, usual)
        opened = _answering(models, drawing.reward, served, safety.limits(), rules)
    lifetime = place.lifetime()
    # First: a port that is taken should not be found out after the models are loaded.
    with bound(address) as listener, opened as (app, name):
        lifetime.follow_signals()
        listen(app, listener, lifetime, partial(_announce, place, listener, token, name))


@contextmanager
def _answering(
    models: ModelOptions, reward: str | None, served: ServedModel, limits: Limits, rules: Rules
) -> Iterator[tuple[ASGIApp, str]]:
    """The application with both models, and what they are called."""
    from alignpro_lite.serve.app import model_app

    with models.load(reward=reward, conversations=limits.parallel) as model:
        # Refused once, and not by each request.
        model.target.thinking.values(served.usual.request.thinking)
        output.show_plan_notes(model)
        yield model_app(model, served, limits, rules), served.name


@contextmanager
def _rewriting(
    models: ModelOptions,
    elsewhere: UpstreamOptions,
    usual: Usual,
    safety: SafetyOptions,
    rules: Rules,
) -> Iterator[tuple[ASGIApp, str]]:
    """The application with the prompter alone, and what answers."""
    from alignpro_lite.cli.meter import Meter
    from alignpro_lite.loading import open_prompter
    from alignpro_lite.serve.app import upstream_app
    from alignpro_lite.serve.upstream import Rewriter

    _refuse_what_needs_a_target()
    limits = safety.limits()
    server = elsewhere.server(is_open=safety.key() is None)
    with Meter() as meter:
        opened = open_prompter(
            models.prompter, models.target, models.open_store(), models.device, meter
        )
    with opened as prompter:
        rewriter = Rewriter(prompter, usual, limits.parallel)
        yield upstream_app(server, rewriter, limits, rules), server.url


_OF_TARGETS = (
    *("n_gpu_layers", "ctx", "reward", "budget", "answers", "guard", "returns", "alias"),
    *({field.name for field in fields(AnswerOptions)} - {"seed", "protect"}),
)
"""Parameters that have no effect where another server answers."""


def _refuse_what_needs_a_target() -> None:
    """Refuse options that another server is to be told by its clients.

    Raises:
        click.UsageError: One was given.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in _OF_TARGETS and source is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{parameter.opts[0]} is for a target of this server, and --upstream has none."
            )


def _model_name(models: ModelOptions) -> str:
    """What clients call the model: the target's name in models.toml, or that of its file."""
    entry = models.open_store().entry("target", models.target)
    return entry.name if entry else Path(models.target).stem


def _announce(place: PlaceOptions, listener: socket.socket, token: str | None, name: str) -> None:
    """Tell a person on stderr, or a program on stdout, that clients can connect."""
    if place.unix_socket is not None:
        where = {"unix_socket": str(place.unix_socket.absolute()), "url": "http://localhost"}
    else:
        host = f"[{place.host}]" if ":" in place.host else place.host
        where = {"url": f"http://{host}:{listener.getsockname()[1]}"}
    if not place.is_sidecar:
        output.note(f"{name} is served at {where['url']}/v1; Ctrl-C ends it.")
        output.note(f"The chat page is {where['url']}/")
        return
    told = {**where, "base_url": f"{where['url']}/v1", "token": token, "model": name}
    click.echo(json.dumps(told | {"pid": os.getpid()}))
    sys.stdout.flush()
