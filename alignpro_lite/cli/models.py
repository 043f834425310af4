"""`alignpro-lite models`: what can be had, what is here, and bringing and removing it."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import click
from click.shell_completion import CompletionItem

from alignpro_lite import registry
from alignpro_lite.cli.options import cache_option
from alignpro_lite.errors import RegistryError
from alignpro_lite.hardware.memory import format_bytes
from alignpro_lite.registry.cache import Cache, Check
from alignpro_lite.registry.models_toml import (
    KINDS,
    BundleRecipe,
    Entry,
    Kind,
    Recipe,
    Registry,
)
from alignpro_lite.registry.sources import LocalSource
from alignpro_lite.registry.storage import Progress
from alignpro_lite.registry.store import ModelStore

_Command = TypeVar("_Command", bound=Callable[..., None])
_REDRAW_SECONDS = 0.1


def _complete_name(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    try:
        entries = registry.load().entries
    except RegistryError:
        # A shell that completes a word has no place for an error; the command shows it.
        return []
    names = sorted({entry.name for entry in entries} | {entry.key for entry in entries})
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _names_argument(required: bool) -> Callable[[_Command], _Command]:
    return click.argument(
        "names",
        metavar="NAME..." if required else "[NAME]...",
        nargs=-1,
        required=required,
        shell_complete=_complete_name,
    )


_name_argument = click.argument("name", metavar="NAME", shell_complete=_complete_name)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON value.")


@click.group()
def models() -> None:
    """List, pull, check and remove models.

    A NAME is a row of models.toml, `kind/name` when several kinds share a name. Only
    `models pull` uses a network.
    """


@models.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="Only models of this kind.")
@_json_option
@cache_option
def list_(kind: Kind | None, as_json: bool, cache: Path | None) -> None:
    """List the models of models.toml and what is installed.

    Your own rows come from $ALIGNPRO_LITE_MODELS, else from models.toml in the
    platform's configuration folder (~/.config/alignpro-lite on Linux). They add to
    the shipped rows and replace those of the same kind and name.
    """
    store = ModelStore.open(cache)
    entries = [entry for entry in store.registry.entries if kind in (None, entry.kind)]
    if as_json:
        click.echo(json.dumps([_describe(entry, store) for entry in entries], indent=2))
        return
    rows = [_table_row(entry, store) for entry in entries]
    _print_table([("NAME", "SIZE", "LICENCE", "STATE", "DESCRIPTION"), *rows])


@models.command()
@_names_argument(required=True)
@cache_option
def pull(names: tuple[str, ...], cache: Path | None) -> None:
    """Download models into the cache; go on where an earlier pull was cut off.

    HF_TOKEN opens gated repositories; HF_ENDPOINT and PIP_INDEX_URL name mirrors.
    """
    from alignpro_lite.registry.pull import pull_model

    store = ModelStore.open(cache)
    for entry in _select(store.registry, names):
        downloaded = store.registry.downloadable(entry)
        with Meter() as meter:
            path = pull_model(downloaded, store.cache, meter)
        click.echo(f"{downloaded.key}: {path}", err=True)
        if not store.cache.is_installed(entry):
            click.echo(f"Build {entry.key} with `{entry.install_command}`.", err=True)


@models.command()
@_name_argument
@_json_option
@cache_option
def show(name: str, as_json: bool, cache: Path | None) -> None:
    """Show all that is known of a model."""
    store = ModelStore.open(cache)
    described = [_describe(entry, store) for entry in store.registry.named(name)]
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    click.echo("\n\n".join(_lines_of(description) for description in described))


@models.command()
@_names_argument(required=False)
@_json_option
@cache_option
def verify(names: tuple[str, ...], as_json: bool, cache: Path | None) -> None:
    """Hash installed models again and compare; all of them when none is named."""
    store = ModelStore.open(cache)
    if names:
        entries = _select(store.registry, names)
        for entry in entries:
            store.cache.installed_path(entry)
    else:
        entries = [entry for entry in store.registry.entries if store.cache.is_installed(entry)]
    with Meter() as meter:
        checks = {entry: _verify(entry, store.cache, meter) for entry in _distinct(entries, store)}
    if as_json:
        click.echo(json.dumps(_json_checks(checks), indent=2))
    else:
        _print_checks(checks)
    _raise_for_damage(checks)


@models.command()
@_names_argument(required=True)
@click.option("--forget", is_flag=True, help="Also drop the digests recorded on first pull.")
@cache_option
def rm(names: tuple[str, ...], forget: bool, cache: Path | None) -> None:
    """Remove models from the cache, and what interrupted pulls left of them."""
    store = ModelStore.open(cache)
    for entry in _distinct(_select(store.registry, names), store):
        freed = store.cache.remove(entry)
        if forget:
            store.cache.forget(entry)
        others = [
            other.key
            for other in store.registry.entries
            if other != entry and store.cache.path(other) == store.cache.path(entry)
        ]
        shared = f", which is {', '.join(others)} too" if others else ""
        click.echo(f"{entry.key}: {format_bytes(freed)} freed{shared}", err=True)


@models.command()
@_name_argument
@cache_option
def path(name: str, cache: Path | None) -> None:
    """Print where a model is."""
    store = ModelStore.open(cache)
    paths = {store.cache.installed_path(entry) for entry in store.registry.named(name)}
    if len(paths) > 1:
        raise RegistryError(
            f"{name!r} names models at {len(paths)} places.",
            "Give kind/name, as in target/" + name + ".",
        )
    click.echo(paths.pop())


class Meter:
    """Draw progress on stderr: a live line in a terminal, else one line at start and end."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._started = self._drawn = 0.0
        self._first = 0
        self._last = Progress("", 0, None)

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish(interrupted=error is not None)

    def __call__(self, progress: Progress) -> None:
        """Take note of progress, and draw it when it is time."""
        now = time.monotonic()
        if progress.label != self._last.label:
            self._finish(interrupted=False)
            self._started, self._first = now, progress.done
            if not self._live and progress.done != progress.total:
                click.echo(f"{progress.label}: {_amount(progress)}", err=True)
        self._last = progress
        if self._live and (now - self._drawn >= _REDRAW_SECONDS or progress.done == progress.total):
            self._drawn = now
            line = self._line(now)[: shutil.get_terminal_size().columns - 1]
            click.echo(f"\r{line}\x1b[K", nl=False, err=True)

    def _finish(self, interrupted: bool) -> None:
        if not self._last.label:
            return
        if self._live:
            click.echo(err=True)
        elif self._last.done:
            state = "stopped at" if interrupted else "done,"
            seconds = time.monotonic() - self._started
            done = format_bytes(self._last.done)
            click.echo(f"{self._last.label}: {state} {done} in {seconds:.1f} s", err=True)
        self._last = Progress("", 0, None)

    def _line(self, now: float) -> str:
        rate = (self._last.done - self._first) / max(now - self._started, 1e-3)
        line = f"{_amount(self._last)} {format_bytes(int(rate))}/s"
        if self._last.total is not None and rate > 0:
            left = int((self._last.total - self._last.done) / rate)
            line += f" {left // 60}:{left % 60:02} left"
        return f"{line}  {self._last.label}"


def _select(registry: Registry, names: Iterable[str]) -> list[Entry]:
    return [entry for name in names for entry in registry.named(name)]


def _distinct(entries: Iterable[Entry], store: ModelStore) -> list[Entry]:
    """Return one of the entries that have the same files with the same digests."""
    return list({(store.cache.path(entry), entry.files): entry for entry in entries}.values())


def _describe(entry: Entry, store: ModelStore) -> dict[str, object]:
    cache = store.cache
    recipe = entry.source if isinstance(entry.source, Recipe) else None
    return {
        "kind": entry.kind,
        "name": entry.name,
        "default": store.registry.defaults.get(entry.kind) == entry.name,
        "installed": cache.is_installed(entry),
        "path": str(cache.path(entry)),
        "source": None if recipe else str(entry.source),
        "recipe": _describe_recipe(recipe) if recipe else None,
        "size": entry.size,
        "licence": entry.licence,
        "context": entry.context,
        "template": entry.template,
        "files": [
            {"path": file.path, "size": file.size, "sha256": cache.digest(entry, file)}
            for file in entry.files
        ],
        "description": entry.description,
        "install_command": entry.install_command,
    }


def _describe_recipe(recipe: Recipe) -> dict[str, str]:
    return {key: str(value) for key, value in vars(recipe).items() if value is not None}


def _table_row(entry: Entry, store: ModelStore) -> tuple[str, ...]:
    default = " (default)" if store.registry.defaults.get(entry.kind) == entry.name else ""
    state = "installed" if store.cache.is_installed(entry) else "-"
    size = "-" if entry.size is None else format_bytes(entry.size)
    return (entry.key + default, size, entry.licence or "-", state, entry.description)


def _print_table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _lines_of(description: dict[str, object]) -> str:
    width = max(map(len, description))
    return "\n".join(
        f"{key.ljust(width)}  {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in description.items()
        if value is not None
    )


def _verify(entry: Entry, cache: Cache, meter: Meter) -> tuple[Check, ...]:
    if not isinstance(entry.source, Recipe):
        return cache.verify(entry, meter)
    # What was built here has its digests in its own sidecar.
    from alignpro_lite.prompter.bundle import read_sidecar
    from alignpro_lite.registry.digests import check_files
    from alignpro_lite.reward.bundle import read_reward_sidecar

    folder = cache.path(entry)
    is_prompter = isinstance(entry.source, BundleRecipe)
    sidecar = read_sidecar(folder) if is_prompter else read_reward_sidecar(folder)
    return check_files(folder, sidecar.files)


def _json_checks(checks: dict[Entry, tuple[Check, ...]]) -> list[dict[str, object]]:
    return [
        {"model": entry.key} | vars(check) | {"path": str(check.path)}
        for entry, found in checks.items()
        for check in found
    ]


def _print_checks(checks: dict[Entry, tuple[Check, ...]]) -> None:
    for entry, found in checks.items():
        if not found:
            click.echo(f"{entry.key}: no digest is declared")
        for check in found:
            click.echo(f"{entry.key}: {check.state}: {check.path}")


def _raise_for_damage(checks: dict[Entry, tuple[Check, ...]]) -> None:
    damaged = {
        entry: bad
        for entry, found in checks.items()
        if (bad := [check for check in found if check.state in ("altered", "missing")])
    }
    if damaged:
        problem = " ".join(_damage(check) for bad in damaged.values() for check in bad)
        raise RegistryError(problem, _repair(damaged))


def _repair(damaged: Iterable[Entry]) -> str:
    if any(isinstance(entry.source, LocalSource) for entry in damaged):
        return "Restore your own file, or correct its sha256 in your models.toml."
    remove = f"alignpro-lite models rm {' '.join(entry.key for entry in damaged)}"
    return f"Run `{' && '.join([remove, *(entry.install_command for entry in damaged)])}`."


def _damage(check: Check) -> str:
    found = "nothing" if check.found is None else check.found
    return f"{check.path}: expected sha256 {check.expected}, found {found}."


def _amount(progress: Progress) -> str:
    if progress.total is None:
        return format_bytes(progress.done) if progress.done else ""
    percent = 100 * progress.done // max(progress.total, 1)
    return f"{percent:3}% {format_bytes(progress.done)} of {format_bytes(progress.total)}"
