"""The models that have a name: models.toml, read and checked.

The package ships one models.toml; rows of the user's own file replace or add to it.
Nothing here touches the cache or a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    JoinedSource,
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
SELF = "self"
"""Begins the name of a prompter that has no bundle: the target's own weights."""

_UNREADABLE = f"Create it, or unset {USER_FILE_VARIABLE}."
_FIRST_OF_SPLIT = re.compile(r"-00001-of-[0-9]{5}\.gguf\Z")
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
        source: The one place to get it.
        sources: Instead of `source`: the places to get it, in the order in which they are tried.
        files: Files of a folder, by path or with their digests; None for a single file.
        sha256: Digest of a single file.
        size: Bytes of all files together.
        licence: SPDX identifier or name of the licence of the weights, empty when unknown.
        context: Longest context in tokens.
        template: Name of the chat template.
        description: One line for people.
    """

    source: NonEmpty | None = None
    sources: tuple[NonEmpty, ...] = ()
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


class Preset(Record):
    """Models that belong together, by their names.

    Attributes:
        bundle: Of the prompter; `self` for none, so that the target's own weights rewrite.
        target: The model that answers.
        reward: What scores answers where a reward is asked for; None for none.
        description: One line for people.
    """

    bundle: NonEmpty
    target: NonEmpty
    reward: NonEmpty | None = None
    description: str = ""

    @property
    def rows(self) -> Iterator[tuple[ModelKind, str]]:
        """Kind and name of each row that it stands for."""
        if self.bundle.partition(":")[0] != SELF:
            yield "bundle", self.bundle
        yield "target", self.target
        if self.reward is not None:
            yield "reward", self.reward


class ModelsFile(Record):
    """A models.toml whose rows are still to be read, by kind and name."""

    preset: Mapping[str, Any] = {}
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
        sources: The places to get it, in order; none for what is built here. A file of the user's
            own is the only place.
        files: Its files. Empty for a recipe and for a `file:` row that declares none.
        is_folder: Whether the model is the folder of its files, not the single file.
        recipe: How it is built here, None for what is downloaded or the user's own.
        licence: SPDX identifier or name of the licence of the weights, empty when unknown.
        size: Bytes of all files together, None when unknown.
        context: Longest context in tokens, None when unknown.
        template: Name of the chat template, None when unknown.
        description: One line for people.
    """

    kind: ModelKind
    name: str
    sources: tuple[Source, ...] = ()
    files: tuple[File, ...] = ()
    is_folder: bool = False
    recipe: Recipe | None = field(default=None, hash=False)  # its weights are a mapping
    licence: str = ""
    size: int | None = None
    context: int | None = None
    template: str | None = None
    description: str = ""

    @property
    def key(self) -> str:
        """`kind/name`, unique in a registry; of a model that was asked for by `hf:...`, that."""
        return self.name if self.name.startswith("hf:") else f"{self.kind}/{self.name}"

    @property
    def own_file(self) -> Path | None:
        """The user's own file or folder that this is; None for what is downloaded or built."""
        own = self.sources[0] if self.sources else None
        return own.path if isinstance(own, LocalSource) else None

    def label(self, file: File) -> str:
        """What people call one file of it."""
        return f"{self.key} {file.path}" if self.is_folder else self.key

    def file_in(self, place: Path, file: File) -> Path:
        """Where a file is if the model is at `place`."""
        return place / file.path if self.is_folder else place

    def opened_in(self, place: Path) -> Path:
        """What is opened of the model at `place`: of a split GGUF, the first part finds the others.

        Otherwise it is the file or the folder itself.
        """
        first = [file for file in self.files if _FIRST_OF_SPLIT.search(file.path)]
        return self.file_in(place, first[0]) if first else place

    @property
    def install_command(self) -> str:
        """The command that brings this model into the cache, or what it is built from."""
        return f"alignpro-lite models pull {self.key}"

    @property
    def build_command(self) -> str:
        """The command that builds a recipe whose base is in the cache."""
        name = self.name if self.kind == "bundle" else self.key
        return f"alignpro-lite export bundle {name}"


@dataclass(frozen=True)
class Registry:
    """All rows, the user's own merged over the shipped ones.

    Attributes:
        entries: Rows in the order of the files.
        presets: Which of them belong together, by name.
    """

    entries: tuple[Entry, ...]
    presets: Mapping[str, Preset]

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
        """Return what a name stands for.

        That is, of these, the first that fits: every model of a preset, every row with that name,
        the one row with that `kind/name`, or the model of that kind of a `kind/preset`.

        Raises:
            RegistryError: It is none of these; the error lists near names.
        """
        if name in self.presets:
            return self.preset(name)
        found = tuple(entry for entry in self.entries if name in (entry.name, entry.key))
        kind, _, preset = name.partition("/")
        if not found and preset in self.presets:
            found = tuple(entry for entry in self.preset(preset) if entry.kind == kind)
        if found:
            return found
        names = [entry.key if "/" in name else entry.name for entry in self.entries]
        names += [] if "/" in name else self.presets
        raise RegistryError(f"No model is named {name!r}{near(name, names)}.", _LIST_CURE)

    def preset(self, name: str) -> tuple[Entry, ...]:
        """Return the models of a preset.

        Raises:
            RegistryError: There is no such preset; the error lists near names. Or it names a
                model that there is not.
        """
        if name not in self.presets:
            raise RegistryError(
                f"No preset is named {name!r}{near(name, self.presets)}.",
                f"models.toml has: {', '.join(self.presets)}.",
            )
        return tuple(self.find(*row) for row in self.presets[name].rows)

    def downloadable(self, entry: Entry) -> Entry:
        """Return what has to be downloaded for a row: for a recipe, its base model.

        Raises:
            RegistryError: A recipe names a base that does not exist or is built itself.
        """
        if entry.recipe is None:
            return entry
        base = self.find(*entry.recipe.needs)
        if base.recipe is not None:
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
    presets: dict[str, Preset] = {}
    places: dict[str, Origin] = {}
    for path in paths:
        origin = Origin(path, RegistryError)
        written = parse(ModelsFile, read_toml(origin, _UNREADABLE), origin)
        presets |= {
            name: parse(Preset, raw, origin.at("preset", _checked_name(name)))
            for name, raw in written.preset.items()
        }
        entries |= (rows := {entry.key: entry for entry in _entries(written, origin)})
        places |= {name: origin.at("preset", name) for name in written.preset}
        places |= {key: origin.at(row.kind, row.name) for key, row in rows.items()}
    registry = Registry(tuple(entries.values()), MappingProxyType(presets))
    for name in presets:
        with _names_checked(places[name]):
            registry.preset(name)
    for entry in registry.entries:
        with _names_checked(places[entry.key]):
            registry.downloadable(entry)
    return registry


@contextmanager
def _names_checked(place: Origin) -> Iterator[None]:
    """Say where a name is that points nowhere; until it is corrected, nothing can be listed."""
    try:
        yield
    except RegistryError as error:
        raise place.located(RegistryError(error.problem, "Correct that name.")) from error


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
    if kind == "bundle" and isinstance(raw, dict) and not {"source", "sources"} & set(raw):
        return BundleRecipe
    if kind == "reward" and isinstance(raw, dict) and "base" in raw:
        return RewardRecipe
    return ModelRow


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RegistryError(
            f"Expected a name of letters and digits joined by . _ or -, found {name!r}.",
            "Rename the row.",
        )
    return name


def _entry(kind: ModelKind, name: str, row: ModelRow | Recipe, folder: Path) -> Entry:
    _checked_name(name)
    if not isinstance(row, ModelRow):
        return Entry(kind, name, is_folder=True, recipe=row, description=row.description)
    sources = _sources(row, folder)
    files = (
        _single_file(sources, row) if row.files is None else _listed_files(row.files, row.sha256)
    )
    _refuse_undecidable(sources, files, row)
    return Entry(
        kind=kind,
        name=name,
        sources=sources,
        files=files,
        is_folder=row.files is not None,
        licence=row.licence,
        size=row.size or _total(files),
        context=row.context,
        template=row.template,
        description=row.description,
    )


def _sources(row: ModelRow, folder: Path) -> tuple[Source, ...]:
    """The places to get a model; `source` is the short form for one."""
    written = row.sources or (() if row.source is None else (row.source,))
    if not written or (row.source and row.sources):
        raise RegistryError(
            "Expected either a source, or sources with several places to get it.",
            'Write source = "...", or sources = ["...", "..."] in the order to try them.',
        )
    sources = tuple(parse_source(text, folder) for text in written)
    if len(sources) > 1 and any(isinstance(source, LocalSource) for source in sources):
        raise RegistryError(
            "A file of your own is used in place and has no other source.",
            "Keep the file: source alone, or leave it out.",
        )
    return sources


def _refuse_undecidable(
    sources: tuple[Source, ...], files: tuple[File, ...], row: ModelRow
) -> None:
    """Several sources, or parts, need what tells the right bytes from others."""
    is_joined = any(isinstance(source, JoinedSource) for source in sources)
    if is_joined and row.files is not None:
        raise RegistryError(
            "Only a single file is joined from parts, found files = [...].",
            "Give each joined file a row of its own.",
        )
    if is_joined and row.size is None:
        raise RegistryError(
            "A source in parts needs the size of the whole.", "Add size = BYTES to the row."
        )
    if (is_joined or len(sources) > 1) and not all(file.sha256 for file in files):
        raise RegistryError(
            "Several sources, or parts, need a sha256: it decides which bytes are the right ones.",
            "Add sha256, or keep one source.",
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


def _single_file(sources: tuple[Source, ...], row: ModelRow) -> tuple[File, ...]:
    for source in sources:
        if isinstance(source, HubSource) and not source.path:
            raise RegistryError(
                f"{source} is a whole repository.",
                "List its files = [...], or add /file to the source.",
            )
    if isinstance(sources[0], LocalSource) and row.sha256 is None:
        return ()
    # What is joined has no name of its own, if another source gives it one.
    name = min(sources, key=lambda source: isinstance(source, JoinedSource)).path
    return (File(Path(name).name, _lower(row.sha256), row.size),)


def _lower(digest: str | None) -> str | None:
    return digest and digest.lower()


def _total(files: tuple[File, ...]) -> int | None:
    sizes = [file.size for file in files if file.size is not None]
    return sum(sizes) if files and len(sizes) == len(files) else None
