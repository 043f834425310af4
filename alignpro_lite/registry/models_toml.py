"""The models that have a name: models.toml, read and checked.

The package ships one models.toml; rows of the user's own file replace or add to it.
Nothing here touches the cache or a network.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar, cast, get_args

import platformdirs

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.sources import (
    HubSource,
    LocalSource,
    Source,
    check_relative,
    parse_source,
)

Kind = Literal["bundle", "prompter", "target", "reward"]
Mode = Literal["rewrite", "augment"]
Precision = Literal["fp32", "fp16", "int8", "int4"]
RewardPrecision = Literal["fp32", "int8"]

KINDS: tuple[Kind, ...] = get_args(Kind)
SHIPPED_FILE = Path(__file__).parents[1] / "models.toml"
SHIPPED_ADAPTERS = Path(__file__).parents[1] / "adapters"
USER_FILE_VARIABLE = "ALIGNPRO_LITE_MODELS"

_ROW_KEYS = frozenset(
    ("source", "files", "size", "sha256", "licence", "context", "template", "description")
)
_BUNDLE_RECIPE_KEYS = frozenset(("prompter", "adapter", "mode", "precision", "description"))
_REWARD_RECIPE_KEYS = frozenset(("base", "adapter", "precision", "weights", "description"))
_FILE_KEYS = frozenset(("path", "sha256", "size"))
_NAME = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_T = TypeVar("_T", str, int, list[object], dict[str, object])
_TYPE_NAMES = {str: "a string", int: "a whole number", list: "a list", dict: "a table"}


@dataclass(frozen=True)
class File:
    """One file of a model.

    Attributes:
        path: Path below the model's folder.
        sha256: Lower-case hex digest, or None when the row declares none.
        size: Bytes, or None when the row declares none.
    """

    path: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class BundleRecipe:
    """How a bundle is built on this machine from a prompter of the registry.

    Attributes:
        prompter: Name of the prompter.
        mode: How its output becomes x'.
        precision: Of the weights.
        adapter: Folder of the LoRA adapter to merge, None for the prompter as it is.
    """

    prompter: str
    mode: Mode
    precision: Precision
    adapter: Path | None = None

    @property
    def needs(self) -> tuple[Kind, str]:
        """Kind and name of the row that has to be downloaded."""
        return "prompter", self.prompter


@dataclass(frozen=True)
class RewardRecipe:
    """How a reward bundle is built on this machine from another reward row.

    Attributes:
        base: Name of the reward row that holds the base model.
        adapter: Folder of what was trained on it.
        precision: Of the weights.
        part_weights: Weight of each named part in the sum; parts that are not named weigh 1.
    """

    base: str
    adapter: Path
    precision: RewardPrecision
    part_weights: tuple[tuple[str, float], ...] = ()

    @property
    def needs(self) -> tuple[Kind, str]:
        """Kind and name of the row that has to be downloaded."""
        return "reward", self.base


Recipe = BundleRecipe | RewardRecipe


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

    kind: Kind
    name: str
    source: Source | Recipe
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
    defaults: Mapping[Kind, str]

    def find(self, kind: Kind, name: str) -> Entry:
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

    def default(self, kind: Kind) -> Entry:
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
    named = os.environ.get(USER_FILE_VARIABLE)
    user_file = Path(named).expanduser() if named else default_user_file()
    return load_files([SHIPPED_FILE, user_file] if named or user_file.exists() else [SHIPPED_FILE])


def default_user_file() -> Path:
    """Return where the user's own models.toml lies unless the environment says otherwise."""
    return platformdirs.user_config_path("alignpro-lite", appauthor=False) / "models.toml"


def load_files(paths: Iterable[Path]) -> Registry:
    """Read several models.toml; a later row replaces an earlier one of the same kind and name.

    Raises:
        RegistryError: A file cannot be read, a row is wrong, or a name points nowhere.
    """
    entries: dict[str, Entry] = {}
    defaults: dict[Kind, str] = {}
    for path in paths:
        document = _read_toml(path)
        with _located(f"{path}"):
            _check_keys(document, (*KINDS, "defaults"))
        with _located(f"[defaults] of {path}"):
            defaults |= _parse_defaults(document.get("defaults", {}))
        for kind in KINDS:
            entries |= {entry.key: entry for entry in _parse_kind(kind, document, path)}
    registry = Registry(tuple(entries.values()), MappingProxyType(defaults))
    for kind in defaults:
        registry.default(kind)
    for entry in registry.entries:
        registry.downloadable(entry)
    return registry


def near(name: str, names: Iterable[str]) -> str:
    """Return ` (near: a, b)` with the names most like `name`, or nothing."""
    matches = difflib.get_close_matches(name, sorted(set(names)), n=3, cutoff=0.5)
    return f" (near: {', '.join(matches)})" if matches else ""


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RegistryError(
            f"Expected a models.toml at {path}: {error.strerror}.",
            f"Create it, or unset {USER_FILE_VARIABLE}.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"{path} is not valid TOML: {error}.", "Correct that line.") from error


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Say in every error of the block where it was found."""
    try:
        yield
    except RegistryError as error:
        raise RegistryError(f"{where}: {error.problem}", error.cure) from error


def _parse_kind(kind: Kind, document: Mapping[str, object], path: Path) -> list[Entry]:
    with _located(f"[{kind}] of {path}"):
        rows = _table(document.get(kind, {}))
    entries = []
    for name, values in rows.items():
        with _located(f"[{kind}.{name}] of {path}"):
            _check_name(name)
            row = _table(values)
            entries.append(_parse_entry(kind, name, row, path.resolve().parent))
    return entries


def _parse_defaults(value: object) -> dict[Kind, str]:
    row = _table(value)
    _check_keys(row, KINDS)
    return {kind: _required(row, kind) for kind in KINDS if kind in row}


def _parse_entry(kind: Kind, name: str, row: Mapping[str, object], folder: Path) -> Entry:
    if kind == "bundle" and "source" not in row:
        recipe: Recipe = _parse_bundle_recipe(row, folder)
    elif kind == "reward" and "base" in row:
        recipe = _parse_reward_recipe(row, folder)
    else:
        return _parse_row(kind, name, row, folder)
    description = _optional(row, "description", str) or ""
    return Entry(kind, name, recipe, is_folder=True, description=description)


def _parse_bundle_recipe(row: Mapping[str, object], folder: Path) -> BundleRecipe:
    _check_keys(row, _BUNDLE_RECIPE_KEYS)
    return BundleRecipe(
        prompter=_required(row, "prompter"),
        mode=cast(Mode, _one_of(row, "mode", get_args(Mode))),
        precision=cast(Precision, _one_of(row, "precision", get_args(Precision))),
        adapter=_adapter(row, folder) if "adapter" in row else None,
    )


def _parse_reward_recipe(row: Mapping[str, object], folder: Path) -> RewardRecipe:
    _check_keys(row, _REWARD_RECIPE_KEYS)
    return RewardRecipe(
        base=_required(row, "base"),
        adapter=_adapter(row, folder),
        precision=cast(RewardPrecision, _one_of(row, "precision", get_args(RewardPrecision))),
        part_weights=_part_weights(row),
    )


def _part_weights(row: Mapping[str, object]) -> tuple[tuple[str, float], ...]:
    found = []
    for name, weight in (_optional(row, "weights", dict) or {}).items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise RegistryError(
                f"Expected the weight of {name} to be a number, found {weight!r}.",
                "Correct weights.",
            )
        found.append((name, float(weight)))
    return tuple(found)


def _adapter(row: Mapping[str, object], folder: Path) -> Path:
    """The folder of an adapter: a name of those in the package, or `file:path` for the user's."""
    text = _required(row, "adapter")
    if text.startswith("file:"):
        return Path(parse_source(text, folder).path)
    shipped = [path.name for path in SHIPPED_ADAPTERS.glob("*")]
    if text not in shipped:
        raise RegistryError(
            f"No adapter named {text!r} comes with the package{near(text, shipped)}.",
            'Correct it, or name a folder of your own with adapter = "file:path".',
        )
    return SHIPPED_ADAPTERS / text


def _parse_row(kind: Kind, name: str, row: Mapping[str, object], folder: Path) -> Entry:
    _check_keys(row, _ROW_KEYS)
    source = parse_source(_required(row, "source"), folder)
    is_folder = "files" in row
    files = _listed_files(row) if is_folder else _single_file(source, row)
    return Entry(
        kind=kind,
        name=name,
        source=source,
        files=files,
        is_folder=is_folder,
        licence=_optional(row, "licence", str) or "",
        size=_count(row, "size") or _total(files),
        context=_count(row, "context"),
        template=_optional(row, "template", str),
        description=_optional(row, "description", str) or "",
    )


def _listed_files(row: Mapping[str, object]) -> tuple[File, ...]:
    if "sha256" in row:
        raise RegistryError(
            "Expected a sha256 for each file, found one for the folder.",
            'Write files = [{ path = "...", sha256 = "..." }].',
        )
    items = _optional(row, "files", list) or []
    files = tuple(_parse_file(item) for item in items)
    if not files or len({file.path for file in files}) < len(files):
        raise RegistryError("Expected files = [...] with different paths.", "Correct the list.")
    return files


def _parse_file(item: object) -> File:
    if isinstance(item, str):
        return File(check_relative(item))
    row = _table(item)
    _check_keys(row, _FILE_KEYS)
    return File(check_relative(_required(row, "path")), _digest(row), _count(row, "size"))


def _single_file(source: Source, row: Mapping[str, object]) -> tuple[File, ...]:
    if isinstance(source, HubSource) and not source.path:
        raise RegistryError(
            f"{source} is a whole repository.",
            "List its files = [...], or add /file to the source.",
        )
    if isinstance(source, LocalSource) and "sha256" not in row:
        return ()
    path = Path(source.path).name
    return (File(path, _digest(row), _count(row, "size")),)


def _total(files: tuple[File, ...]) -> int | None:
    sizes = [file.size for file in files if file.size is not None]
    return sum(sizes) if files and len(sizes) == len(files) else None


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise RegistryError(
            f"Expected a name of letters and digits joined by . _ or -, found {name!r}.",
            "Rename the row.",
        )


def _check_keys(row: Mapping[str, object], known: Collection[str]) -> None:
    for key in row:
        if key not in known:
            raise RegistryError(
                f"Unknown key {key!r}{near(key, known)}.",
                f"Known keys: {', '.join(sorted(known))}.",
            )


def _table(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        raise RegistryError(f"Expected a table, found {value!r}.", "Write it as [kind.name].")
    return value


def _optional(row: Mapping[str, object], key: str, expected: type[_T]) -> _T | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, expected) or isinstance(value, bool):
        raise RegistryError(
            f"Expected {key} to be {_TYPE_NAMES[expected]}, found {value!r}.", f"Correct {key}."
        )
    return value


def _required(row: Mapping[str, object], key: str) -> str:
    value = _optional(row, key, str)
    if not value:
        raise RegistryError(f"The key {key} is missing or empty.", f'Add {key} = "...".')
    return value


def _count(row: Mapping[str, object], key: str) -> int | None:
    value = _optional(row, key, int)
    if value is not None and value < 1:
        raise RegistryError(f"Expected {key} above zero, found {value}.", f"Correct {key}.")
    return value


def _digest(row: Mapping[str, object]) -> str | None:
    value = _optional(row, "sha256", str)
    if value is not None and not _SHA256.fullmatch(value.lower()):
        raise RegistryError(
            f"Expected a sha256 of 64 hexadecimal digits, found {value!r}.",
            "Correct it, or leave it out to record the digest of the first pull.",
        )
    return value.lower() if value else None


def _one_of(row: Mapping[str, object], key: str, choices: tuple[str, ...]) -> str:
    value = _required(row, key)
    if value not in choices:
        raise RegistryError(f"Unknown {key} {value!r}.", f"Choose from {', '.join(choices)}.")
    return value
