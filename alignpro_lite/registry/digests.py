"""The sha256 of the files of a folder: listed, and compared with those that a sidecar lists."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignpro_lite.registry.storage import OnProgress, no_progress, sha256_of


@dataclass(frozen=True)
class Check:
    """What a comparison found about one file.

    Attributes:
        path: The file.
        state: `ok`; `missing`; `altered`; `unrecorded` when no digest is known; `unreadable` for
            a sidecar that is damaged or of another version, so that it tells no digests.
        expected: The digest declared or recorded, None when there is none.
        found: The digest of the file, None when missing or unreadable.
    """

    path: Path
    state: Literal["ok", "missing", "altered", "unrecorded", "unreadable"]
    expected: str | None
    found: str | None


def digests_of(folder: Path) -> dict[str, str]:
    """The sha256 of every file of a folder, by name; folders in it, such as .git, do not count."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {path.name: sha256_of(path, path.name) for path in files}


def check_files(folder: Path, files: Mapping[str, str]) -> tuple[Check, ...]:
    """Compare files of a folder with their sha256, given by relative name; several at a time."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        paths = [folder / name for name in files]
        return tuple(pool.map(check_file, paths, files.values(), files))


def check_file(
    path: Path, expected: str | None, label: str, on_progress: OnProgress = no_progress
) -> Check:
    """Compare a file with its digest, None if none is known."""
    if not path.is_file():
        return Check(path, "missing", expected, None)
    found = sha256_of(path, label, on_progress)
    if expected is None:
        return Check(path, "unrecorded", None, found)
    return Check(path, "ok" if found == expected else "altered", expected, found)
