"""The sha256 of a model's file, hashed once and remembered while the file stays as it is."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.stamps import identity_of
from alignpro_lite.registry.storage import disk_errors, sha256_of, write_text
from alignpro_lite.registry.store import ModelStore

_HEX_DIGITS = 64


def digest_of_file(store: ModelStore, file: Path) -> str:
    """The sha256 of a file: what its row declares, else what was remembered, else hashed now.

    Args:
        store: Its rows and its cache, which `ModelStore.path` has compared with the file.
        file: The file; of a split model, the first part.

    Raises:
        RegistryError: The file cannot be read.
    """
    for entry in store.registry.entries if store.cache.folder else ():
        for part in entry.files:
            if part.sha256 is not None and store.cache.file_path(entry, part) == file.absolute():
                return part.sha256
    with disk_errors(file):
        memory = _memory_of(store.cache, file)
        known = _read(memory)
        if known is None:
            known = sha256_of(file, file.name)
            _write(memory, known)
        return known


def _memory_of(cache: Cache, file: Path) -> Path | None:
    if cache.folder is None:
        return None
    identity = hashlib.sha256(ascii(identity_of(file)).encode()).hexdigest()[:32]
    return cache.folder / "known-digests" / identity


def _read(memory: Path | None) -> str | None:
    if memory is None or not memory.is_file():
        return None
    text = memory.read_text(encoding="ascii", errors="replace").strip()
    return text if len(text) == _HEX_DIGITS else None


def _write(memory: Path | None, digest: str) -> None:
    """A cache that cannot be written forgets it."""
    if memory is not None:
        with suppress(OSError):
            memory.parent.mkdir(parents=True, exist_ok=True)
            write_text(memory, digest + "\n")
