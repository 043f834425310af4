"""What was found good once, and need not be looked at again while its files stay as they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

FileIdentity = tuple[str, int, int, int, int]
_added: set[Path] = set()
"""Stamps of this process, which count also where they could not be written."""


def identity_of(file: Path) -> FileIdentity:
    """What changes when a file is replaced or written into: path, size, two times, inode.

    The time of the last change of the inode cannot be set back, as that of the content can.

    Raises:
        OSError: The file cannot be reached.
    """
    found = file.resolve()
    state = found.stat()
    return str(found), state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


@dataclass(frozen=True)
class Stamps:
    """A folder of empty files, each named after something that was found good.

    Attributes:
        folder: Made with the first stamp.
    """

    folder: Path

    def has(self, *what: object) -> bool:
        """Whether this was found good."""
        file = self._file(what)
        # os.path answers no where pathlib raises: a folder that may not be read.
        return file in _added or os.path.exists(file)  # noqa: PTH110

    def add(self, *what: object) -> None:
        """Remember that this is good; without room or permission, for this process only."""
        file = self._file(what)
        _added.add(file)
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            file.touch()

    def _file(self, what: tuple[object, ...]) -> Path:
        return self.folder / hashlib.sha256(ascii(what).encode()).hexdigest()[:32]
