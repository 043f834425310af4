"""Models by name: the rows of models.toml together with the folder where the models are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.intact import require_intact
from alignpro_lite.registry.models_toml import Entry, ModelKind, Registry, load
from alignpro_lite.registry.record import near
from alignpro_lite.registry.storage import disk_errors

DEFAULT = "default"
"""Stands for the model that models.toml names as the default of its kind."""


@dataclass(frozen=True)
class ModelStore:
    """Everything needed to find a model.

    Attributes:
        registry: The models that have a name.
        cache: The folder where they are.
    """

    registry: Registry
    cache: Cache

    @classmethod
    def open(cls, cache: Path | None = None) -> ModelStore:
        """Read models.toml; nothing is written.

        Args:
            cache: Folder of pulled models; None for the platform's own.

        Raises:
            RegistryError: A models.toml cannot be read.
        """
        return cls(load(), Cache.open(cache))

    def path(self, kind: ModelKind, name_or_path: str | Path) -> Path:
        """The file or folder of a model, intact if it is one of the cache.

        Args:
            kind: What the model is for.
            name_or_path: `default`, an existing path, or a name of models.toml; the first of
                these that fits counts.

        Raises:
            RegistryError: It is none of these, or the model is not installed; the cure is the
                command that brings it. Or the cache cannot be read.
            ModelFileError: It was pulled, and is not what was pulled any more.
        """
        with disk_errors(Path(name_or_path)):
            return self._path(kind, str(name_or_path))

    def _path(self, kind: ModelKind, name: str) -> Path:
        if name == DEFAULT:
            return self._installed(self.registry.default(kind))
        # os.path answers no where pathlib raises: an over-long text, an unknown ~user.
        path = os.path.expanduser(name)  # noqa: PTH111
        if os.path.exists(path):  # noqa: PTH110
            for entry in self.registry.entries if self.cache.folder else ():
                if entry.files and self.cache.path(entry) == Path(path).absolute():
                    return self._installed(entry)
            return Path(path)
        names = [entry.name for entry in self.registry.entries if entry.kind == kind]
        if name not in names:
            raise RegistryError(
                f"{name!r} is neither a file here nor a {kind} in models.toml{near(name, names)}.",
                "Check the path, or run `alignpro-lite models list` to see all names.",
            )
        return self._installed(self.registry.find(kind, name))

    def _installed(self, entry: Entry) -> Path:
        path = self.cache.installed_path(entry)
        require_intact(self.cache, entry)
        return path
