"""What a file is that holds no rows, told by its first bytes, and how to make rows of it."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.errors import InputError

_SAVE = "Save its rows as JSON lines, CSV or Parquet."
_UNPACK = "Unpack it, and name one of its files."
_NEVER_OPENED = f"Opening it would run code that it holds, so it is never opened. {_SAVE}"
_SHEET = "Save the sheet as CSV in UTF-8."
_NAMES_SHOWN = 3
_PAGE_BEGINNINGS = ("<!doctype html", "<html")


@dataclass(frozen=True)
class ForeignKind:
    """A kind of file that is not read.

    Attributes:
        name: What it is, with its article.
        cure: What to do with it.
    """

    name: str
    cure: str


_KINDS = {
    b"\x28\xb5\x2f\xfd": ForeignKind("compressed with zstd", "Unpack it with `zstd -d`."),
    b"BZh": ForeignKind("compressed with bzip2", "Unpack it with `bunzip2`."),
    b"\xfd7zXZ\0": ForeignKind("compressed with xz", "Unpack it with `unxz`."),
    b"\x04\x22\x4d\x18": ForeignKind("compressed with lz4", "Unpack it with `lz4 -d`."),
    b"7z\xbc\xaf\x27\x1c": ForeignKind("a 7z archive", _UNPACK),
    b"Rar!": ForeignKind("a RAR archive", _UNPACK),
    b"\xd0\xcf\x11\xe0": ForeignKind("an old Excel or Office file", _SHEET),
    b"ARROW1": ForeignKind("an Arrow file", _SAVE),
    b"\xff\xff\xff\xff": ForeignKind(
        "an Arrow file as `datasets` saves it",
        "Load its folder with `datasets.load_from_disk`, and save it with `to_json`.",
    ),
    b"\x80\x02": ForeignKind("a pickle", _NEVER_OPENED),
    b"\x80\x03": ForeignKind("a pickle", _NEVER_OPENED),
    b"\x80\x04": ForeignKind("a pickle", _NEVER_OPENED),
    b"\x80\x05": ForeignKind("a pickle", _NEVER_OPENED),
    b"\x93NUMPY": ForeignKind("a NumPy array", _SAVE),
    b"SQLite format 3\0": ForeignKind("an SQLite database", _SAVE),
    b"\x89HDF": ForeignKind("an HDF5 file", _SAVE),
    b"Obj\x01": ForeignKind("an Avro file", _SAVE),
    b"GGUF": ForeignKind("a GGUF model", "Name the file of the data."),
    b"%PDF": ForeignKind("a PDF", _SAVE),
    b"version https://git-lfs": ForeignKind(
        "a pointer of Git LFS; the data was not downloaded", "Run `git lfs pull` in its folder."
    ),
}
_TAR = b"ustar", 257
_SAFETENSORS = b'{"', 8


def refuse_foreign(path: Path, raw: bytes) -> None:
    """Refuse what holds no rows, and say what it is.

    Args:
        path: For the error.
        raw: The content.

    Raises:
        InputError: It is an archive, a pickle, a web page, a model, ...
    """
    kind = _kind_of(raw)
    if kind is not None:
        raise InputError(f"{path} must hold rows of data, found {kind.name}.", kind.cure)


def _kind_of(raw: bytes) -> ForeignKind | None:
    if raw.startswith(b"PK\x03\x04"):
        return _zip_kind(raw)
    for beginning, kind in _KINDS.items():
        if raw.startswith(beginning):
            return kind
    if raw.startswith(*_TAR):
        return ForeignKind("a tar archive", _UNPACK)
    if raw.startswith(*_SAFETENSORS) and b"\0" in raw[:8]:
        return ForeignKind("a safetensors file", "Name the file of the data.")
    if raw[:100].lstrip().lower().startswith(tuple(map(str.encode, _PAGE_BEGINNINGS))):
        return ForeignKind(
            "a web page",
            "Download the file itself; on Hugging Face, write `resolve` for `blob` in its address.",
        )
    return None


def _zip_kind(raw: bytes) -> ForeignKind:
    """Workbooks, arrays and torch's pickles are zip archives too."""
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        return ForeignKind(f"a damaged zip archive ({error})", "Get it again.")
    if "xl/workbook.xml" in names:
        return ForeignKind("an Excel workbook", _SHEET)
    if any(name.endswith("data.pkl") for name in names):
        return ForeignKind("a pickle of torch", _NEVER_OPENED)
    if names and all(name.endswith(".npy") for name in names):
        return ForeignKind("an archive of NumPy arrays", _SAVE)
    more = ", ..." if len(names) > _NAMES_SHOWN else ""
    return ForeignKind(f"a zip archive of {', '.join(names[:_NAMES_SHOWN])}{more}", _UNPACK)
