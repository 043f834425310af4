"""What a model with a name is: its row as it is written, its entry, and the registry of all.

`models_toml` reads them from files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.record import Count, NonEmpty, Record, near
from alignpro_lite.registry.sources import LocalSource, Source

ModelKind = Literal["bundle", "prompter", "target", "reward"]
RewriteMode = Literal["rewrite", "augment"]
Precision = Literal["fp32", "fp16", "int8", "int4"]
RewardPrecision = Literal["fp32", "int8"]

KINDS: tuple[ModelKind, ...] = get_args(ModelKind)

SELF = "self"
"""Begins the name of a prompter that has no bundle: the target's own weights."""

_FIRST_OF_SPLIT = re.compile(r"-00001-of-[0-9]{5}\.gguf\Z")
_LIST_CURE = "Run `alignpro-lite models list` to see all names."

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
