"""Models by name: the rows of models.toml together with the folder where the models are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import Entry, ModelKind, Registry
from alignpro_lite.registry.intact import require_intact
from alignpro_lite.registry.models_toml import load
from alignpro_lite.registry.record import near
from alignpro_lite.registry.references import find_reference, find_remains, is_reference
from alignpro_lite.registry.storage import disk_errors

DEFAULT = "default"
"""As the name of a model: the one of its kind in the preset. As that of a preset: the usual one."""


@dataclass(frozen=True)
class ModelStore:
    """Everything needed to find a model.

    Attributes:
        registry: The models that have a name.
        cache: The folder where they are.
        preset: Name of the preset whose models `default` stands for.
    """

    registry: Registry
    cache: Cache
    preset: str = DEFAULT

    @classmethod
    def open(cls, cache: Path | None = None, preset: str = DEFAULT) -> ModelStore:
        """Read models.toml; nothing is written.

        Args:
            cache: Folder of pulled models; None for the platform's own.
            preset: Name of the preset whose models `default` stands for.

        Raises:
            RegistryError: A models.toml cannot be read, or has no such preset.
        """
        registry = load()
        registry.preset(preset)
        return cls(registry, Cache.open(cache), preset)

    def default(self, kind: ModelKind) -> Entry:
        """The model of a kind that is used when none is named.

        Raises:
            RegistryError: The preset has none.
        """
        for entry in self.registry.preset(self.preset):
            if entry.kind == kind:
                return entry
        raise RegistryError(
            f"The preset {self.preset} has no {kind}.",
            f"Name one, or add {kind} to [preset.{self.preset}] in models.toml.",
        )

    def prompter_name(self, name_or_path: str | Path) -> str:
        """What `default` stands for as the name of a prompter; any other name as it is."""
        name = str(name_or_path)
        return self.registry.presets[self.preset].bundle if name == DEFAULT else name

    def named(self, name: str) -> tuple[Entry, ...]:
        """What a name stands for: see `Registry.named`, or an installed model as `hf:...`.

        Raises:
            RegistryError: There is none of that name, or it is not installed.
        """
        if is_reference(name):
            return (self._referenced("target", name),)
        return self.registry.named(name)

    def removable(self, name: str) -> tuple[Entry, ...]:
        """What a name stands for when it is removed: as `named`, or what is here of `hf:...`.

        Of a model that is not whole, that is what an interrupted pull left.

        Raises:
            RegistryError: There is none of that name, or nothing of it is here.
        """
        if not is_reference(name):
            return self.registry.named(name)
        with disk_errors(self.cache.root):
            entry = find_reference(name, "target", self.cache)
            entry = entry or find_remains(name, "target", self.cache)
        if entry is None:
            raise RegistryError(
                f"Nothing of {name} is in {self.cache.root}.",
                "Write the name as it was pulled; --cache DIR names another cache.",
            )
        return (entry,)

    def path(self, kind: ModelKind, name_or_path: str | Path) -> Path:
        """The file or folder of a model, intact if it is one of the cache.

        Args:
            kind: What the model is for.
            name_or_path: `default`, an existing path, `hf:...` for a GGUF file of a hub, or a name
                of models.toml; the first of these that fits counts.

        Raises:
            RegistryError: It is none of these, or the model is not installed; the cure is the
                command that brings it. Or the cache cannot be read.
            ModelFileError: It was pulled, and is not what was pulled any more.
        """
        with disk_errors(Path(name_or_path)):
            return self._path(kind, str(name_or_path))

    def entry(self, kind: ModelKind, name_or_path: str | Path) -> Entry | None:
        """The row that `path` would take; None for a path, a reference or an unknown name.

        Raises:
            RegistryError: The preset has no model of this kind.
        """
        name = str(name_or_path)
        if name == DEFAULT:
            return self.default(kind)
        if os.path.exists(os.path.expanduser(name)):  # noqa: PTH110, PTH111 - see `_path`
            return None
        name = name.removeprefix(f"{kind}/")  # as `models list` writes it
        found = [
            entry for entry in self.registry.entries if (entry.kind, entry.name) == (kind, name)
        ]
        return found[0] if found else None

    def installed(self, entry: Entry) -> Path:
        """What is opened of the model of a row, intact.

        Raises:
            RegistryError, ModelFileError: See `path`.
        """
        with disk_errors(self.cache.root):
            path = self.cache.installed_path(entry)
        require_intact(self.cache, entry)
        return path

    def _path(self, kind: ModelKind, name: str) -> Path:
        entry = self.entry(kind, name)
        if entry is not None:
            return self.installed(entry)
        # os.path answers no where pathlib raises: an over-long text, an unknown ~user.
        path = os.path.expanduser(name)  # noqa: PTH111
        if os.path.exists(path):  # noqa: PTH110
            for entry in self.registry.entries if self.cache.folder else ():
                if entry.files and self.cache.path(entry) == Path(path).absolute():
                    return self.installed(entry)
            return Path(path)
        if is_reference(name):
            return self.installed(self._referenced(kind, name))
        name = name.removeprefix(f"{kind}/")
        names = [entry.name for entry in self.registry.entries if entry.kind == kind]
        raise RegistryError(
            f"{name!r} is neither a file here nor a {kind} in models.toml{near(name, names)}.",
            "Check the path, or run `alignpro-lite models list` to see all names.",
        )

    def _referenced(self, kind: ModelKind, text: str) -> Entry:
        with disk_errors(self.cache.root):
            entry = find_reference(text, kind, self.cache)
        if entry is None:
            raise RegistryError(
                f"{text} is not installed.", f"Run `alignpro-lite models pull {text}`."
            )
        return entry
