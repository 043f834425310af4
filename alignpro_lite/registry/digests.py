"""The sha256 of the files of a folder: listed, and compared with those that a sidecar lists."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from alignpro_lite.registry.cache import Check
from alignpro_lite.registry.storage import sha256_of


def digests_of(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a folder, by name; folders in it, such as .git, do not count."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: sha256_of(path, path.name) for path in files}


def check_files(folder: Path, files: Mapping[str, str]) -> tuple[Check, ...]:
    """Compare every file with its digest, several at a time.

    Args:
        folder: The bundle.
        files: sha256 by relative name.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        return tuple(pool.map(_check_file, repeat(folder), files.items()))


def _check_file(folder: Path, file: tuple[str, str]) -> Check:
    path, expected = folder / file[0], file[1]
    if not path.is_file():
        return Check(path, "missing", expected, None)
    found = sha256_of(path, path.name)
    return Check(path, "ok" if found == expected else "altered", expected, found)
