"""What was looked at once and need not be looked at again, as long as its files stay as they are."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from os import path as os_path
from pathlib import Path

FileIdentity = tuple[str, int, int, int, int]


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
        return os_path.exists(self._file(what))  # where pathlib raises, the answer is no

    def add(self, *what: object) -> None:
        """Remember that this is good; without room or permission it is looked at again."""
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file(what).touch()

    def _file(self, what: tuple[object, ...]) -> Path:
        return self.folder / hashlib.sha256(ascii(what).encode()).hexdigest()[:32]
