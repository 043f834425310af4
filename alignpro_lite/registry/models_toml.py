"""The models that have a name: models.toml, read and checked.

The package ships one models.toml; rows of the user's own file replace or add to it.
Nothing here touches the cache or a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import platformdirs
from msgspec.structs import replace

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.entries import (
    KINDS,
    BundleRecipe,
    Entry,
    File,
    ModelKind,
    ModelRow,
    Preset,
    Recipe,
    Registry,
    RewardRecipe,
)
from alignpro_lite.registry.record import Origin, Record, near, parse, read_toml
from alignpro_lite.registry.sources import (
    HubSource,
    JoinedSource,
    LocalSource,
    Source,
    check_relative,
    parse_source,
)
from alignpro_lite.registry.storage import user_path, usual_folder

SHIPPED_FILE = Path(__file__).parents[1] / "models.toml"
SHIPPED_ADAPTERS = Path(__file__).parents[1] / "adapters"
USER_FILE_VARIABLE = "ALIGNPRO_LITE_MODELS"

_UNREADABLE = f"Create it, or unset {USER_FILE_VARIABLE}."
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")


class ModelsFile(Record):
    """A models.toml whose rows are still to be read, by kind and name."""

    preset: Mapping[str, Any] = {}
    bundle: Mapping[str, Any] = {}
    prompter: Mapping[str, Any] = {}
    target: Mapping[str, Any] = {}
    reward: Mapping[str, Any] = {}


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
