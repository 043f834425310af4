"""What was found good once, and need not be looked at again while its files stay as they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.registry.cache import Cache

FileIdentity = tuple[str, int, int, int, int]
_added: set[tuple[Cache, str]] = set()
"""What this process has found good, which counts also where no cache can be written."""


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
    """What a cache and this process remember to have found good."""

    cache: Cache

    def has(self, *what: object) -> bool:
        """Whether this was found good."""
        fact = _fact(what)
        return (self.cache, fact) in _added or self.cache.remembers(fact)

    def add(self, *what: object) -> None:
        """Remember that this is good; where the cache cannot be written, for this process only."""
        fact = _fact(what)
        _added.add((self.cache, fact))
        self.cache.remember(fact)


def _fact(what: tuple[object, ...]) -> str:
    return hashlib.sha256(ascii(what).encode()).hexdigest()[:32]
