"""The model hub's own cache: files that other programs have downloaded are used where they are.

Its layout is `models--OWNER--NAME/snapshots/COMMIT/PATH`, each file a link to
`blobs/DIGEST`, and `refs/BRANCH` holds a commit. It is only ever read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from alignpro_lite.registry.sources import HubSource

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def hub_cache_folder() -> Path:
    """Where the hub's own library keeps what it downloads."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return _expanded_user(folder)
    if home := os.environ.get("HF_HOME"):
        return _expanded_user(home) / "hub"
    return _expanded_user(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface/hub"


def snapshot_of(source: HubSource) -> Path | None:
    """The folder of a repository's revision in the hub's own cache; None if it has none."""
    repository = hub_cache_folder() / f"models--{source.repository.replace('/', '--')}"
    commit = source.revision
    reference = repository / "refs" / source.revision
    if not _COMMIT.fullmatch(commit) and is_readable(reference):
        commit = reference.read_text("utf-8", errors="replace").strip()
    snapshot = repository / "snapshots" / commit
    return snapshot if _COMMIT.fullmatch(commit) and os.path.isdir(snapshot) else None  # noqa: PTH112


def is_readable(path: Path) -> bool:
    """Whether this is a file that may be read; others' caches are left alone where they may not."""
    return os.path.isfile(path) and os.access(path, os.R_OK)  # noqa: PTH113 - pathlib raises


def blob_digest(path: Path) -> str | None:
    """The sha256 that the hub's own cache names a large file by; None for any other file."""
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    is_blob = os.path.basename(folder) == "blobs" and _SHA256.fullmatch(name)  # noqa: PTH119
    return name if is_blob else None


def files_below(folder: Path) -> Iterator[str]:
    """Relative paths of all files below a folder; of one that is not there, none."""
    for parent, _, names in os.walk(folder):
        for name in names:
            yield (Path(parent) / name).relative_to(folder).as_posix()


def _expanded_user(folder: str) -> Path:
    return Path(os.path.expanduser(folder)).absolute()  # noqa: PTH111 - pathlib raises for ~nobody
