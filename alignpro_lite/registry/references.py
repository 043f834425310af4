"""GGUF files of a model hub that have no row: `hf:owner/repo:Q4_K_M`, `hf:owner/repo/file.gguf`.

A reference is looked up in the repository when it is pulled, and in the cache and the hub's own
cache when it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import Entry, File, ModelKind
from alignpro_lite.registry.hub_cache import files_below, snapshot_of
from alignpro_lite.registry.record import near
from alignpro_lite.registry.sources import HubSource, check_relative
from alignpro_lite.registry.storage import begun_file

USUAL_REVISION = "main"

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_FORM = re.compile(rf"hf:({_WORD}/{_WORD})(?:@({_WORD}))?(?::([A-Za-z0-9][A-Za-z0-9_-]*)|/(.+))")
_SPLIT = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.gguf")
_SHOWN = 12
"""The most file names in a message."""


def is_reference(name: str) -> bool:
    """Whether a name asks for a file of a hub instead of a row."""
    return name.startswith("hf:")


@dataclass(frozen=True)
class HubReference:
    """A GGUF model of a repository, as it is written where a name is expected.

    Attributes:
        text: All of it.
        repository: `owner/name`.
        revision: Commit, tag or branch.
        tag: The quantisation that is wanted, such as `Q4_K_M`; empty if a file is named.
        path: The file that is named, else empty.
    """

    text: str
    repository: str
    revision: str
    tag: str
    path: str

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Read a reference.

        Raises:
            RegistryError: It has neither form.
        """
        match = _FORM.fullmatch(text)
        if match is None or (match[4] and not match[4].endswith(".gguf")):
            raise RegistryError(
                f"Expected a GGUF model of a hub, found {text!r}.",
                "Write hf:owner/repo:Q4_K_M or hf:owner/repo/file.gguf, with @revision behind repo "
                "if it is not the main branch.",
            )
        repository, revision, tag, path = match.groups()
        inside = check_relative(path) if path else ""
        return cls(text, repository, revision or USUAL_REVISION, tag or "", inside)

    @property
    def source(self) -> HubSource:
        """The whole repository."""
        return HubSource(self.repository, self.revision, "")

    def chosen(self, paths: Iterable[str]) -> tuple[str, ...]:
        """The files that are meant, of those that there are: one, or the parts of a split one.

        Raises:
            RegistryError: No model or several are meant.
        """
        paths = sorted(path for path in paths if path.endswith(".gguf"))
        models: dict[str, list[str]] = {}
        for path in filter(self.means, paths):
            split = _SPLIT.fullmatch(path)
            models.setdefault(split[1] if split else path, []).append(path)
        if not models:
            raise RegistryError(
                f"{self.text} names no file{near(self.path, paths)}.",
                f"The repository has: {_listed(paths)}." if paths else "It has no GGUF file.",
            )
        if len(models) > 1:
            raise RegistryError(
                f"{self.text} names {len(models)} models.",
                f"Name one as hf:{self.repository}/FILE: "
                f"{_listed([files[0] for files in models.values()])}.",
            )
        (files,) = models.values()
        return tuple(files)

    def means(self, path: str) -> bool:
        """Whether a file of the repository, or one it is split with, is meant."""
        if self.path:
            split, asked = _SPLIT.fullmatch(path), _SPLIT.fullmatch(self.path)
            together = split and asked and (split[1], split[3]) == (asked[1], asked[3])
            return bool(together) or path == self.path
        if not path.endswith(".gguf"):
            return False
        name = PurePosixPath(path).name
        # A projector of images lies beside many models; it is none.
        bounded = rf"(?:^|[-._/]){re.escape(self.tag)}(?=[-./])"
        return not name.startswith("mmproj") and bool(re.search(bounded, path, re.IGNORECASE))

    def entry(self, kind: ModelKind, files: tuple[File, ...]) -> Entry:
        """A row for the files that were chosen; their paths are those in the repository."""
        folder = PurePosixPath(files[0].path).parent.as_posix()
        inside = "" if folder == "." else folder
        is_split = len(files) > 1
        source = HubSource(self.repository, self.revision, inside if is_split else files[0].path)
        named = tuple(File(PurePosixPath(file.path).name, file.sha256, file.size) for file in files)
        sizes = [file.size for file in files if file.size is not None]
        size = sum(sizes) if len(sizes) == len(files) else None
        return Entry(kind, self.text, (source,), named, is_folder=is_split, size=size)


def is_whole(files: tuple[str, ...]) -> bool:
    """Whether no part of a split model is missing; of any other, whether there is one file."""
    splits = [split for split in map(_SPLIT.fullmatch, files) if split]
    numbers = [int(split[2]) for split in splits]
    return bool(files) and (not splits or numbers == list(range(1, int(splits[0][3]) + 1)))


def find_reference(text: str, kind: ModelKind, cache: Cache) -> Entry | None:
    """The row for a reference whose files are here; None if one is missing. Uses no network.

    Raises:
        RegistryError: It is no reference, or several models that are here are meant.
    """
    reference = HubReference.parse(text)
    folders = [cache.path(Entry(kind, text, (reference.source,))), snapshot_of(reference.source)]
    files = _chosen_of(
        reference, {path for folder in folders if folder for path in files_below(folder)}
    )
    return reference.entry(kind, tuple(map(File, files))) if is_whole(files) else None


def find_remains(text: str, kind: ModelKind, cache: Cache) -> Entry | None:
    """The row for what the cache has of a reference, be it less than a model; None for nothing.

    That is whole files, what interrupted pulls left, and recorded digests. Uses no network.

    Raises:
        RegistryError: It is no reference, or several models are meant.
    """
    reference = HubReference.parse(text)
    folder = cache.path(Entry(kind, text, (reference.source,)))
    here = set(map(begun_file, files_below(folder)))
    files = _chosen_of(reference, here | cache.recorded_below(folder))
    return reference.entry(kind, tuple(map(File, files))) if files else None


def _chosen_of(reference: HubReference, paths: set[str]) -> tuple[str, ...]:
    """The files that are meant, of those that there may be."""
    return reference.chosen(paths) if any(map(reference.means, paths)) else ()


def _listed(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
