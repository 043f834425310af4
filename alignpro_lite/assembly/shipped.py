"""The bundles that need no torch: their graphs come with the package, their weights are pulled.

A graph fits a row of models.toml if it was made from the same GGUF file and the same adapter, at
the same precision; what the row is called does not matter.
"""

from __future__ import annotations

import os
from pathlib import Path

from alignpro_lite.assembly.assemble import Parts, fill_graph
from alignpro_lite.assembly.factors import WEIGHTS
from alignpro_lite.assembly.graphs import read_manifest
from alignpro_lite.errors import BundleError, RegistryError
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE
from alignpro_lite.prompter.card import MadeDecoder, card_of, write_sidecar
from alignpro_lite.registry import BundleRecipe, Entry, ModelStore
from alignpro_lite.registry.storage import (
    ASSEMBLING,
    DOOMED,
    OnProgress,
    Progress,
    disk_errors,
    hidden_beside,
    no_progress,
    remove_tree,
    sha256_of,
)

SHIPPED_GRAPHS = Path(__file__).parents[1] / "graphs"


def bundle_path(
    store: ModelStore, name_or_path: str | Path, on_progress: OnProgress = no_progress
) -> Path:
    """The folder of a bundle; assembled first, if it is not and its parts are here.

    Args:
        store: Where models are.
        name_or_path: See `ModelStore.path`.
        on_progress: Told how far the assembly is.

    Raises:
        RegistryError: See `ModelStore.path`.
        ModelFileError: A part is not what was pulled.
    """
    entry = store.entry("bundle", name_or_path)
    if entry is None:
        return store.path("bundle", name_or_path)
    return row_path(store, entry, on_progress)


def row_path(store: ModelStore, entry: Entry, on_progress: OnProgress = no_progress) -> Path:
    """The folder of the bundle of a row; see `bundle_path`."""
    if isinstance(entry.recipe, BundleRecipe):
        assemble(entry, entry.recipe, store, on_progress)
    return store.installed(entry)


def is_at_hand(store: ModelStore, entry: Entry) -> bool:
    """Whether the bundle of a row is here, or can be assembled of what is here."""
    if store.cache.folder is None:
        return False
    if store.cache.is_installed(entry):
        return True
    if not isinstance(entry.recipe, BundleRecipe):
        return False
    base = store.registry.downloadable(entry)
    return store.cache.is_installed(base) and _shell_for(entry, entry.recipe, store) is not None


def assemble(
    entry: Entry, recipe: BundleRecipe, store: ModelStore, on_progress: OnProgress = no_progress
) -> None:
    """Assemble the bundle of a row in the cache, unless it is there or has no graph.

    What another version of the package has left there is replaced.

    Args:
        entry: The row.
        recipe: How it is built.
        store: Where its base is.
        on_progress: Told how far it is.

    Raises:
        RegistryError: The base is not pulled, or the disk is full or read-only.
        ModelFileError: The base is not what was pulled.
    """
    if _is_current(store, entry) or (shell := _shell_for(entry, recipe, store)) is None:
        return
    base = store.registry.downloadable(entry)
    if not store.cache.is_installed(base):
        raise RegistryError(f"{entry.key} is not installed.", f"Run `{entry.install_command}`.")
    parts = Parts(shell, read_manifest(shell), store.installed(base), recipe.adapter)
    label = f"{entry.key}: waiting for another process that assembles it"
    waiting = Progress(label, 0, None, "assembling")
    with (
        disk_errors(store.cache.root),
        store.cache.locked(entry, lambda: on_progress(waiting)),
    ):
        if not _is_current(store, entry):
            _assemble_at(store.cache.path(entry), parts, recipe, on_progress)


def _assemble_at(place: Path, parts: Parts, recipe: BundleRecipe, on_progress: OnProgress) -> None:
    """Write a bundle that appears complete; the lock of its row is held."""
    work, doomed = hidden_beside(place, ASSEMBLING), hidden_beside(place, DOOMED)
    for leftover in (work, doomed):
        remove_tree(leftover)
    work.mkdir(parents=True)
    try:
        fill_graph(parts, work, on_progress)
        manifest = parts.manifest
        made = MadeDecoder(manifest.graph, manifest.tokens, manifest.parity)
        card = card_of(recipe.prompter, recipe.adapter, recipe.mode)
        write_sidecar(
            work, made, card, recipe.prompter, recipe.adapter.name if recipe.adapter else None
        )
        if os.path.lexists(place):  # a link may lead nowhere
            place.rename(doomed)
        work.rename(place)
    finally:
        for leftover in (work, doomed):
            remove_tree(leftover)


def _is_current(store: ModelStore, entry: Entry) -> bool:
    """Whether there is a bundle that this version of the package can read."""
    if store.cache.folder is None or not store.cache.is_installed(entry):
        return False
    try:
        PROMPTER_BUNDLE.read(store.cache.path(entry))
    except BundleError:
        return False
    return True


def _shell_for(entry: Entry, recipe: BundleRecipe, store: ModelStore) -> Path | None:
    """The folder of the graph that fits a row; None if none does."""
    base = store.registry.downloadable(entry)
    source = base.files[0].sha256 if len(base.files) == 1 else None
    adapter = recipe.adapter
    if source is None or (adapter and not (adapter / WEIGHTS).is_file()):
        return None
    weights = sha256_of(adapter / WEIGHTS, WEIGHTS) if adapter else None
    for shell in sorted(SHIPPED_GRAPHS.glob("*")):
        manifest = read_manifest(shell)
        if (manifest.source, manifest.adapter, manifest.graph.precision) == (
            source,
            weights,
            recipe.precision,
        ):
            return shell
    return None
