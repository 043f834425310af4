"""`alignpro-lite models`: list, pull, check and remove models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import click
from click.shell_completion import CompletionItem
from msgspec.structs import asdict

from alignpro_lite import registry
from alignpro_lite.cli.meter import Meter
from alignpro_lite.cli.options import cache_option
from alignpro_lite.errors import BundleError, RegistryError
from alignpro_lite.hardware.memory import format_bytes
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.digests import Check, check_files
from alignpro_lite.registry.entries import KINDS, BundleRecipe, Entry, ModelKind, Recipe
from alignpro_lite.registry.references import is_reference
from alignpro_lite.registry.store import ModelStore

_Command = TypeVar("_Command", bound=Callable[..., None])


def _complete_name(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    try:
        known = registry.load()
    except RegistryError:
        # Shell completion cannot show an error; the command itself will.
        return []
    rows = {name for entry in known.entries for name in (entry.name, entry.key)}
    names = sorted(rows | set(known.presets))
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

    NAME is a preset of models.toml, which stands for all its models; a row, written
    kind/name if several kinds share the name; or a GGUF model of a hub, written
    hf:owner/repo:Q4_K_M or hf:owner/repo/file.gguf (hf:owner/repo@revision...). Only
    `models pull` uses the network.
    """


@models.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="Only models of this kind.")
@_json_option
@cache_option
def list_models(kind: ModelKind | None, as_json: bool, cache: Path | None) -> None:
    """List the models of models.toml and which are installed.

    Your own rows are read from $ALIGNPRO_LITE_MODELS, or else from models.toml in the
    platform's configuration folder (~/.config/alignpro-lite on Linux). They add to
    the shipped rows and replace those of the same kind and name.
    """
    store = ModelStore.open(cache)
    entries = [entry for entry in store.registry.entries if kind in (None, entry.kind)]
    if as_json:
        click.echo(json.dumps([_as_json(entry, store) for entry in entries], indent=2))
        return
    rows = [_table_row(entry, store) for entry in entries]
    _print_table([("NAME", "PRESETS", "SIZE", "LICENCE", "STATE", "DESCRIPTION"), *rows])


@models.command("pull")
@_names_argument(required=True)
@cache_option
def pull_models(names: tuple[str, ...], cache: Path | None) -> None:
    """Download models into the cache; an interrupted pull is resumed.

    The sources of a model are tried in order. What the hub's own cache holds is used
    where it is. HF_TOKEN gives access to gated repositories; HF_ENDPOINT and
    PIP_INDEX_URL set mirrors.
    """
    from alignpro_lite.registry.download import outages_remembered
    from alignpro_lite.registry.pull import pull_reference

    store = ModelStore.open(cache)
    with outages_remembered():
        for name in names:
            if is_reference(name):
                with Meter() as meter:
                    path = pull_reference(name, store.cache, meter, meter.note)
                click.echo(f"{name}: {path}", err=True)
                continue
            for entry in store.registry.named(name):
                _pull_row(entry, store)
    _collect_strays(store)


def _pull_row(entry: Entry, store: ModelStore) -> None:
    """Download a row, or what it is made from, and build it where that needs no torch."""
    from alignpro_lite.assembly.shipped import assemble
    from alignpro_lite.registry.pull import pull_model

    downloaded = store.registry.downloadable(entry)
    with Meter() as meter:
        path = pull_model(downloaded, store.cache, meter, meter.note)
    click.echo(f"{downloaded.key}: {path}", err=True)
    if isinstance(entry.recipe, BundleRecipe):
        with Meter() as meter:
            assemble(entry, entry.recipe, store, meter)
    if not store.cache.is_installed(entry):
        click.echo(f"Build {entry.key} with `{entry.build_command}`.", err=True)


@models.command("show")
@_name_argument
@_json_option
@cache_option
def show_model(name: str, as_json: bool, cache: Path | None) -> None:
    """Show everything that is known about a model."""
    store = ModelStore.open(cache)
    described = [_as_json(entry, store) for entry in store.named(name)]
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    click.echo("\n\n".join(_lines_of(description) for description in described))


@models.command("verify")
@_names_argument(required=False)
@_json_option
@cache_option
def verify_models(names: tuple[str, ...], as_json: bool, cache: Path | None) -> None:
    """Compare the digests of installed models; of all, if none is named."""
    store = ModelStore.open(cache)
    if names:
        entries = _select(store, names)
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


@models.command("rm")
@_names_argument(required=True)
@click.option("--forget", is_flag=True, help="Also forget the digests recorded at the first pull.")
@cache_option
def remove_models(names: tuple[str, ...], forget: bool, cache: Path | None) -> None:
    """Remove models from the cache, including what interrupted pulls left."""
    store = ModelStore.open(cache)
    chosen = [entry for name in names for entry in store.removable(name)]
    for entry in _distinct(chosen, store):
        freed = store.cache.remove(entry)
        if forget:
            store.cache.forget(entry)
        others = [
            other.key
            for other in store.registry.entries
            if other != entry and store.cache.path(other) == store.cache.path(entry)
        ]
        shared = f", also removed: {', '.join(others)}" if others else ""
        click.echo(f"{entry.key}: {format_bytes(freed)} freed{shared}", err=True)
        if place := store.cache.place(entry):
            click.echo(f"{entry.key} stays in the hub's own cache: {place}", err=True)
    _collect_strays(store)


@models.command("path")
@_name_argument
@cache_option
def print_path(name: str, cache: Path | None) -> None:
    """Print the path of an installed model."""
    store = ModelStore.open(cache)
    paths = {store.cache.installed_path(entry) for entry in store.named(name)}
    if len(paths) > 1:
        raise RegistryError(
            f"{name!r} names models at {len(paths)} paths.",
            f"Use kind/name, as in target/{name}.",
        )
    click.echo(paths.pop())


def _collect_strays(store: ModelStore) -> None:
    """Free what abandoned downloads left; a cache that cannot be changed keeps it."""
    try:
        freed = store.cache.collect_strays(store.registry.entries)
    except RegistryError as error:
        click.echo(f"What abandoned downloads left could not be deleted. {error}", err=True)
    else:
        if freed:
            click.echo(f"{format_bytes(freed)} of abandoned downloads freed", err=True)


def _select(store: ModelStore, names: Iterable[str]) -> list[Entry]:
    return [entry for name in names for entry in store.named(name)]


def _distinct(entries: Iterable[Entry], store: ModelStore) -> list[Entry]:
    """One entry for each set of files with the same digests."""
    return list({(store.cache.path(entry), entry.files): entry for entry in entries}.values())


def _as_json(entry: Entry, store: ModelStore) -> dict[str, object]:
    cache = store.cache
    return {
        "kind": entry.kind,
        "name": entry.name,
        "presets": _presets_of(entry, store),
        "installed": cache.is_installed(entry),
        "path": str(cache.place(entry) or cache.path(entry)),
        "sources": [str(source) for source in entry.sources] or None,
        "recipe": _describe_recipe(entry.recipe) if entry.recipe else None,
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


def _presets_of(entry: Entry, store: ModelStore) -> list[str]:
    """The presets that name a row."""
    known = store.registry
    return [name for name in known.presets if entry in known.preset(name)]


def _describe_recipe(recipe: Recipe) -> dict[str, str]:
    values = asdict(recipe)
    values.pop("description")  # the entry has it
    return {key: str(value) for key, value in values.items() if value is not None}


def _table_row(entry: Entry, store: ModelStore) -> tuple[str, ...]:
    presets = ", ".join(_presets_of(entry, store))
    state = "installed" if store.cache.is_installed(entry) else "-"
    size = "-" if entry.size is None else format_bytes(entry.size)
    return (entry.key, presets, size, entry.licence or "-", state, entry.description)


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
    if entry.recipe is None:
        return cache.verify(entry, meter)
    # What was built here lists its digests in its own sidecar.
    from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE
    from alignpro_lite.reward.bundle import REWARD_BUNDLE

    folder = cache.path(entry)
    is_prompter = isinstance(entry.recipe, BundleRecipe)
    try:
        sidecar = PROMPTER_BUNDLE.read(folder) if is_prompter else REWARD_BUNDLE.read(folder)
    except BundleError:
        name = PROMPTER_BUNDLE.name if is_prompter else REWARD_BUNDLE.name
        return (Check(folder / name, "unreadable", None, None),)
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
        if (bad := [check for check in found if check.state not in ("ok", "unrecorded")])
    }
    if damaged:
        problem = " ".join(_problem_of(check) for bad in damaged.values() for check in bad)
        raise RegistryError(problem, _repair(damaged))


def _problem_of(check: Check) -> str:
    if check.state == "unreadable":
        return f"{check.path} is damaged or of another version."
    return f"{check.path}: expected sha256 {check.expected}, found {check.found or 'nothing'}."


def _repair(damaged: Iterable[Entry]) -> str:
    if any(entry.own_file for entry in damaged):
        return "Restore your own file, or correct its sha256 in your models.toml."
    remove = f"alignpro-lite models rm {' '.join(entry.key for entry in damaged)}"
    return f"Run `{' && '.join([remove, *(entry.install_command for entry in damaged)])}`."
