"""The models that have a name: models.toml, read and checked.

The package ships one models.toml; rows of the user's own file replace or add to it.
Nothing here touches the cache or a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

import msgspec
import platformdirs
from msgspec import Meta
from msgspec.structs import replace

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.record import Count, NonEmpty, Origin, Record, near, parse, read_toml
from alignpro_lite.registry.sources import (
    HubSource,
    LocalSource,
    Source,
    check_relative,
    parse_source,
)
from alignpro_lite.registry.storage import user_path, usual_folder

ModelKind = Literal["bundle", "prompter", "target", "reward"]
RewriteMode = Literal["rewrite", "augment"]
Precision = Literal["fp32", "fp16", "int8", "int4"]
RewardPrecision = Literal["fp32", "int8"]

KINDS: tuple[ModelKind, ...] = get_args(ModelKind)
SHIPPED_FILE = Path(__file__).parents[1] / "models.toml"
SHIPPED_ADAPTERS = Path(__file__).parents[1] / "adapters"
USER_FILE_VARIABLE = "ALIGNPRO_LITE_MODELS"

_UNREADABLE = f"Create it, or unset {USER_FILE_VARIABLE}."
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")

Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}\Z")]


class File(Record):
    """One file of a model.

    Attributes:
        path: Path below the model's folder.
        sha256: Lower-case hex digest, or None when the row declares none.
        size: Bytes, or None when the row declares none.
    """

    path: NonEmpty
    sha256: Sha256 | None = None
    size: Count | None = None


class ModelRow(Record):
    """A row as it is written, of a model that is downloaded or the user's own.

    Attributes:
        source: Where it comes from.
        files: Files of a folder, by path or with their digests; None for a single file.
        sha256: Digest of a single file.
        size: Bytes of all files together.
        licence: SPDX identifier or name of the licence of the weights, empty when unknown.
        context: Longest context in tokens.
        template: Name of the chat template.
        description: One line for people.
    """

    source: NonEmpty
    files: tuple[str | File, ...] | None = None
    sha256: Sha256 | None = None
    size: Count | None = None
    licence: str = ""
    context: Count | None = None
    template: str | None = None
    description: str = ""


class BundleRecipe(Record):
    """A row of a bundle that is built on this machine from a prompter of the registry.

    Attributes:
        prompter: Name of the prompter.
        mode: How its output becomes x'.
        precision: Of the weights.
        adapter: Folder of the LoRA adapter to merge, None for the prompter as it is.
        description: One line for people.
    """

    prompter: NonEmpty
    mode: RewriteMode
    precision: Precision
    adapter: Path | None = None
    description: str = ""

    @property
    def needs(self) -> tuple[ModelKind, str]:
        """Kind and name of the row that has to be downloaded."""
        return "prompter", self.prompter


class RewardRecipe(Record):
    """A row of a reward bundle that is built on this machine from another reward row.

    Attributes:
        base: Name of the reward row that holds the base model.
        adapter: Folder of what was trained on it.
        precision: Of the weights.
        part_weights: `weights` in the file: of each named part in the sum; parts that are not
            named weigh 1.
        description: One line for people.
    """

    base: NonEmpty
    adapter: Path
    precision: RewardPrecision
    part_weights: Mapping[str, float] = msgspec.field(default_factory=dict, name="weights")
    description: str = ""

    @property
    def needs(self) -> tuple[ModelKind, str]:
        """Kind and name of the row that has to be downloaded."""
        return "reward", self.base


Recipe = BundleRecipe | RewardRecipe


class Defaults(Record):
    """[defaults]: the name that each kind uses when none is given."""

    bundle: NonEmpty | None = None
    prompter: NonEmpty | None = None
    target: NonEmpty | None = None
    reward: NonEmpty | None = None


class ModelsFile(Record):
    """A models.toml whose rows are still to be read, by kind and name."""

    defaults: Defaults = Defaults()
    bundle: Mapping[str, Any] = {}
    prompter: Mapping[str, Any] = {}
    target: Mapping[str, Any] = {}
    reward: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Entry:
    """One row of models.toml.

    Attributes:
        kind: What the model is for.
        name: Its name, unique within the kind.
        source: Where it comes from; a Recipe for what is built here.
        files: Its files. Empty for a recipe and for a `file:` row that declares none.
        is_folder: Whether the model is the folder of its files, not the single file.
        licence: SPDX identifier or name of the licence of the weights, empty when unknown.
        size: Bytes of all files together, None when unknown.
        context: Longest context in tokens, None when unknown.
        template: Name of the chat template, None when unknown.
        description: One line for people.
    """

    kind: ModelKind
    name: str
    source: Source | Recipe = field(hash=False)  # weights of a recipe are a mapping
    files: tuple[File, ...] = ()
    is_folder: bool = False
    licence: str = ""
    size: int | None = None
    context: int | None = None
    template: str | None = None
    description: str = ""

    @property
    def key(self) -> str:
        """`kind/name`, unique in a registry."""
        return f"{self.kind}/{self.name}"

    def label(self, file: File) -> str:
        """What people call one file of it."""
        return f"{self.key} {file.path}"

    @property
    def install_command(self) -> str:
        """The command that brings this model into the cache."""
        if isinstance(self.source, Recipe):
            name = self.name if self.kind == "bundle" else self.key
            return f"alignpro-lite export bundle {name}"
        return f"alignpro-lite models pull {self.key}"


@dataclass(frozen=True)
class Registry:
    """All rows, the user's own merged over the shipped ones.

    Attributes:
        entries: Rows in the order of the files.
        defaults: The name that each kind uses when none is given.
    """

    entries: tuple[Entry, ...]
    defaults: Mapping[ModelKind, str]

    def find(self, kind: ModelKind, name: str) -> Entry:
        """Return the row of that kind and name.

        Raises:
            RegistryError: There is none; the error lists near names.
        """
        for entry in self.entries:
            if (entry.kind, entry.name) == (kind, name):
                return entry
        names = [entry.name for entry in self.entries if entry.kind == kind]
        raise RegistryError(f"No {kind} is named {name!r}{near(name, names)}.", _LIST_CURE)

    def named(self, name: str) -> tuple[Entry, ...]:
        """Return every row with that `name`, or the one row with that `kind/name`.

        Raises:
            RegistryError: There is none; the error lists near names.
        """
        found = tuple(entry for entry in self.entries if name in (entry.name, entry.key))
        if found:
            return found
        names = [entry.key if "/" in name else entry.name for entry in self.entries]
        raise RegistryError(f"No model is named {name!r}{near(name, names)}.", _LIST_CURE)

    def default(self, kind: ModelKind) -> Entry:
        """Return the row that a kind uses when none is named.

        Raises:
            RegistryError: The kind has no default.
        """
        if kind not in self.defaults:
            raise RegistryError(
                f"No default {kind} is set.", f"Name one, or set {kind} in [defaults]."
            )
        return self.find(kind, self.defaults[kind])

    def downloadable(self, entry: Entry) -> Entry:
        """Return what has to be downloaded for a row: for a recipe, its base model.

        Raises:
            RegistryError: A recipe names a base that does not exist or is built itself.
        """
        if not isinstance(entry.source, Recipe):
            return entry
        base = self.find(*entry.source.needs)
        if isinstance(base.source, Recipe):
            raise RegistryError(
                f"{entry.key} is made from {base.key}, which is built here itself.",
                "Name a row that is downloaded.",
            )
        return base


_LIST_CURE = "Run `alignpro-lite models list` to see all names."


def load() -> Registry:
    """Read the shipped models.toml and the user's own, if there is one.

    The user's own is the file in `ALIGNPRO_LITE_MODELS`, else models.toml in the
    platform's configuration folder for alignpro-lite.

    Raises:
        RegistryError: A file cannot be read, or a row is wrong.
    """
    if named := os.environ.get(USER_FILE_VARIABLE):
        return load_files([SHIPPED_FILE, user_path(named)])
    own = default_user_file()
    if own is not None and os.path.exists(own):  # noqa: PTH110 - pathlib raises for lack of rights
        return load_files([SHIPPED_FILE, own])
    return load_files([SHIPPED_FILE])


def default_user_file() -> Path | None:
    """Where the user's own models.toml is usually; None without a home folder."""
    folder = usual_folder(platformdirs.user_config_path)
    return folder and folder / "models.toml"


def load_files(paths: Iterable[Path]) -> Registry:
    """Read several models.toml; a later row replaces an earlier one of the same kind and name.

    Raises:
        RegistryError: A file cannot be read, a row is wrong, or a name points nowhere.
    """
    entries: dict[str, Entry] = {}
    defaults: dict[ModelKind, str] = {}
    for path in paths:
        origin = Origin(path, RegistryError)
        written = parse(ModelsFile, read_toml(origin, _UNREADABLE), origin)
        named = {kind: getattr(written.defaults, kind) for kind in KINDS}
        defaults |= {kind: name for kind, name in named.items() if name is not None}
        entries |= {entry.key: entry for entry in _entries(written, origin)}
    registry = Registry(tuple(entries.values()), MappingProxyType(defaults))
    for kind in defaults:
        registry.default(kind)
    for entry in registry.entries:
        registry.downloadable(entry)
    return registry


def adapter_folder(text: Any, folder: Path) -> Path:
    """The folder of an adapter: a name of those in the package, or `file:path` for the user's.

    Args:
        text: The name or the path.
        folder: What a relative path starts at.

    Raises:
        RegistryError: It is neither; the error lists near names.
    """
    if isinstance(text, str) and text.startswith("file:"):
        return Path(parse_source(text, folder).path)
    shipped = [path.name for path in SHIPPED_ADAPTERS.glob("*")]
    if not isinstance(text, str) or text not in shipped:
        raise RegistryError(
            f"No adapter named {text!r} comes with the package{near(str(text), shipped)}.",
            'Correct it, or name a folder of your own with adapter = "file:path".',
        )
    return SHIPPED_ADAPTERS / text


def _entries(written: ModelsFile, origin: Origin) -> Iterator[Entry]:
    folder = origin.file.resolve().parent
    for kind in KINDS:
        for name, raw in getattr(written, kind).items():
            place = origin.at(kind, name)
            row = parse(
                _row_type(kind, raw), raw, place, lambda _, text: adapter_folder(text, folder)
            )
            try:
                yield _entry(kind, name, row, folder)
            except RegistryError as error:
                raise place.located(error) from error


def _row_type(kind: ModelKind, raw: Any) -> type[ModelRow | Recipe]:
    """A bundle is built here unless it has a source, a reward if it has a base."""
    if kind == "bundle" and isinstance(raw, dict) and "source" not in raw:
        return BundleRecipe
    if kind == "reward" and isinstance(raw, dict) and "base" in raw:
        return RewardRecipe
    return ModelRow


def _entry(kind: ModelKind, name: str, row: ModelRow | Recipe, folder: Path) -> Entry:
    if not _NAME.fullmatch(name):
        raise RegistryError(
            f"Expected a name of letters and digits joined by . _ or -, found {name!r}.",
            "Rename the row.",
        )
    if not isinstance(row, ModelRow):
        return Entry(kind, name, row, is_folder=True, description=row.description)
    source = parse_source(row.source, folder)
    files = _single_file(source, row) if row.files is None else _listed_files(row.files, row.sha256)
    return Entry(
        kind=kind,
        name=name,
        source=source,
        files=files,
        is_folder=row.files is not None,
        licence=row.licence,
        size=row.size or _total(files),
        context=row.context,
        template=row.template,
        description=row.description,
    )


def _listed_files(listed: tuple[str | File, ...], sha256: str | None) -> tuple[File, ...]:
    if sha256 is not None:
        raise RegistryError(
            "Expected a sha256 for each file, found one for the folder.",
            'Write files = [{ path = "...", sha256 = "..." }].',
        )
    files = [File(item) if isinstance(item, str) else item for item in listed]
    if not files or len({file.path for file in files}) < len(files):
        raise RegistryError("Expected files = [...] with different paths.", "Correct the list.")
    return tuple(
        replace(file, path=check_relative(file.path), sha256=_lower(file.sha256)) for file in files
    )


def _single_file(source: Source, row: ModelRow) -> tuple[File, ...]:
    if isinstance(source, HubSource) and not source.path:
        raise RegistryError(
            f"{source} is a whole repository.",
            "List its files = [...], or add /file to the source.",
        )
    if isinstance(source, LocalSource) and row.sha256 is None:
        return ()
    return (File(Path(source.path).name, _lower(row.sha256), row.size),)


def _lower(digest: str | None) -> str | None:
    return digest and digest.lower()


def _total(files: tuple[File, ...]) -> int | None:
    sizes = [file.size for file in files if file.size is not None]
    return sum(sizes) if files and len(sizes) == len(files) else None
