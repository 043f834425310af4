"""A folder that appears complete, or not at all, whoever else exports beside it.

An export to `b` works in `.exporting-b`, beside `b`, and holds `.export-lock-b`. The system ends
the lock with its process, so that a folder without one was left by an export that was killed: the
next export collects it, and puts back a bundle that had been set aside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignpro_lite.errors import ExportError, InputError
from alignpro_lite.export.exchange import exchange
from alignpro_lite.gguf.reading import MAGIC
from alignpro_lite.registry.storage import disk_errors, try_locked

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"

_WORK = ".exporting-"
_LOCK = ".export-lock-"
_OLD = "old"


class _HeldError(Exception):
    """Another process exports to the same place."""


@contextmanager
def whole_folder(destination: Path, sidecar: str) -> Iterator[Path]:
    """Give an empty folder that is moved to `destination` when the block ends without an error.

    Args:
        destination: The final path; a folder of the same kind that is already there is replaced, in
            one step where the system allows that.
        sidecar: The file that every folder of this kind contains.

    Yields:
        The folder to fill.

    Raises:
        ExportError: Something of another kind is at `destination`, or another export to it is under
            way.
        RegistryError: The disk is full or read-only.
    """
    destination = destination.resolve()
    with work_beside(destination) as work:
        _refuse_foreign(destination, sidecar)
        folder = work / "bundle"
        folder.mkdir()
        yield folder
        for path in folder.iterdir():
            path.chmod(0o644)  # the graph's data file is created private
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        _refuse_foreign(destination, sidecar)  # it may have come meanwhile
        _replace(folder, destination, work / _OLD)


def refuse_loss(destination: Path, *sources: Path) -> None:
    """Refuse to replace what an export is made from, or a folder around it.

    Raises:
        InputError: Names both.
        RegistryError: A source cannot be reached.
    """
    if not destination.exists():
        return
    for source in sources:
        whole = source.resolve()
        with disk_errors(source):
            places = (place for place in (whole, *whole.parents) if place.exists())
            is_lost = any(map(destination.samefile, places))
        if is_lost:
            raise InputError(
                f"{destination} is or holds {source}, from which the export is made.",
                "Choose another folder.",
            )


def refuse_foreign_file(gguf: Path) -> None:
    """Replace only another GGUF file.

    Raises:
        InputError: Something else is there.
        RegistryError: It cannot be read.
    """
    if not gguf.exists():
        return
    if gguf.is_file():
        with disk_errors(gguf), gguf.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return
    raise InputError(f"{gguf} is there and is no GGUF file.", "Choose another name.")


@contextmanager
def work_beside(destination: Path) -> Iterator[Path]:
    """Give an empty folder beside a destination to work in; it is deleted at the end.

    Raises:
        ExportError: Another export to the destination is under way.
        RegistryError: The disk is full or read-only.
    """
    work = destination.with_name(_WORK + destination.name)
    with disk_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        _collect_strays(destination.parent)
        try:
            with _held(destination):
                _recover(destination)
                work.mkdir()
                try:
                    yield work
                finally:
                    shutil.rmtree(work)
        except _HeldError as error:
            raise ExportError(
                f"Another export to {destination} is under way.",
                "Wait until it is done, or choose another destination.",
            ) from error


def _collect_strays(folder: Path) -> None:
    """Delete what exports that were killed left in a folder."""
    for prefix in (_WORK, _LOCK):
        for stray in list(folder.glob(f"{prefix}*")):
            destination = folder / stray.name.removeprefix(prefix)
            with (
                suppress(_HeldError, PermissionError),
                _held(destination),
            ):  # another's, alive or not
                _recover(destination)


def _recover(destination: Path) -> None:
    """Undo an export that was killed; its lock is held."""
    work = destination.with_name(_WORK + destination.name)
    if (work / _OLD).exists() and not destination.exists():
        (work / _OLD).rename(destination)
    if work.exists():
        shutil.rmtree(work)


@contextmanager
def _held(destination: Path) -> Iterator[None]:
    """Hold the lock of a destination.

    Raises:
        _HeldError: Another process holds it.
    """
    with try_locked(destination.with_name(_LOCK + destination.name)) as is_held:
        if not is_held:
            raise _HeldError
        yield


def _refuse_foreign(destination: Path, sidecar: str) -> None:
    """Replace only a folder of the same kind; anything else belongs to the user."""
    if destination.exists() and not (destination / sidecar).is_file():
        raise ExportError(
            f"Expected a bundle with a {sidecar} at {destination}, found something else.",
            "Choose another folder, or remove it first.",
        )


def _replace(new: Path, destination: Path, old: Path) -> None:
    if not destination.exists():
        new.rename(destination)
    elif not exchange(new, destination):
        destination.rename(old)
        new.rename(destination)
