"""The tables of py3langid on disk instead of in memory.

py3langid reads them whole, which takes 74 MB, and 103 MB for a moment. A sentence needs a few
hundred kilobytes of them, so they are unpacked into a temporary file and read there.
"""

from __future__ import annotations

import lzma
import math
import mmap
import shutil
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any, Literal, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from py3langid.langid import LanguageIdentifier

_LOCAL_HEADER = 30
"""Bytes of a member's header in a zip file before its name and its extra field, whose lengths are
its last four bytes."""


def identifier_on_disk(model: Path) -> LanguageIdentifier:
    """Open a model of py3langid.

    Args:
        model: An npz file in LZMA.

    Raises:
        OSError: There is no room to unpack it.
    """
    from py3langid.langid import LanguageIdentifier

    # Nothing in the file system names it; it ends with the identifier.
    unpacked = cast("IO[bytes]", TemporaryFile(buffering=0))  # noqa: SIM115 - kept open
    with lzma.open(model) as packed:
        shutil.copyfileobj(packed, unpacked, length=1 << 20)
    with zipfile.ZipFile(unpacked) as archive:
        arrays = {member.filename: _stored(unpacked, member) for member in archive.infolist()}
    return LanguageIdentifier(
        _Rows(arrays["ptc.npy"]),
        arrays["pc.npy"].read(),
        arrays["classes.npy"].read().tolist(),
        arrays["nextmove.npy"].integers(),
        arrays["out_feat.npy"].integers(),
        norm_probs=True,
        tk_row=arrays["nextmove_row.npy"].integers(),
    )


@dataclass(frozen=True)
class _Stored:
    """An array in a file.

    Attributes:
        file: It stays open.
        offset: Where its first element begins, in bytes.
        dtype: Of its elements.
        shape: Its shape.
    """

    file: IO[bytes]
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> NDArray[Any]:
        """All of it, in memory."""
        self.file.seek(self.offset)
        return np.frombuffer(self.file.read(self.n_bytes), self.dtype).reshape(self.shape)

    def integers(self) -> Sequence[int]:
        """All of it, mapped: plain ints, which a loop over the bytes of a text is fastest with."""
        pages = memoryview(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))
        kind = cast(Literal["I"], self.dtype.char)
        return pages[self.offset : self.offset + self.n_bytes].cast(kind)


def _stored(file: IO[bytes], member: zipfile.ZipInfo) -> _Stored:
    """Where an array stands uncompressed in a zip file."""
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    lengths = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
    file.seek(member.header_offset + _LOCAL_HEADER + sum(lengths))
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    return _Stored(file, file.tell(), dtype, shape)


@dataclass(frozen=True)
class _Rows:
    """A table of which single rows are read.

    A mapped one would soon be whole in memory, because the system maps the pages around each row.

    Attributes:
        table: The table.
    """

    table: _Stored
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getitem__(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        """Some rows, shape (rows, columns)."""
        columns = self.table.shape[1]
        length = columns * self.table.dtype.itemsize
        found = bytearray()
        with self._lock:
            for row in rows.tolist():
                self.table.file.seek(self.table.offset + row * length)
                found += self.table.file.read(length)
        return np.frombuffer(found, self.table.dtype).reshape(-1, columns)
