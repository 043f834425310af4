"""The files of a bundle: they lie in its folder, and each is what its sidecar says it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path

from alignpro_lite.errors import BundleError
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


def require_unaltered(folder: Path, files: Mapping[str, str], cure: str) -> None:
    """Refuse a bundle with a file that is missing or altered.

    Raises:
        BundleError: Names the first such file.
    """
    for check in check_files(folder, files):
        if check.state == "missing":
            raise BundleError(f"{check.path} of the bundle is missing.", cure)
        if check.state == "altered":
            raise BundleError(
                f"{check.path} was altered: sha256 {check.expected} expected, {check.found} found.",
                cure,
            )


def require_names(files: Mapping[str, str], used: Iterable[str], sidecar: Path, cure: str) -> None:
    """Every file lies in the bundle, and none is used without a digest.

    Raises:
        BundleError: Names the file.
    """
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise BundleError(f"{sidecar} names a file outside the bundle: {name}.", cure)
    for name in used:
        if name not in files:
            raise BundleError(f"{sidecar} has no digest of {name}.", cure)


def _check_file(folder: Path, file: tuple[str, str]) -> Check:
    path, expected = folder / file[0], file[1]
    if not path.is_file():
        return Check(path, "missing", expected, None)
    found = sha256_of(path, path.name)
    return Check(path, "ok" if found == expected else "altered", expected, found)
