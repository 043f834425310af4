"""A folder that appears complete, or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignpro_lite.errors import ExportError
from alignpro_lite.registry.storage import disk_errors

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"


@contextmanager
def whole_folder(destination: Path, sidecar: str) -> Iterator[Path]:
    """Give an empty folder that is moved to `destination` when the block ends without an error.

    Args:
        destination: The final path; a folder of the same kind that is already there is replaced.
        sidecar: The file that every folder of this kind contains.

    Yields:
        The folder to fill.

    Raises:
        ExportError: Something of another kind is at `destination`.
        RegistryError: The disk is full or read-only.
    """
    _refuse_foreign(destination, sidecar)
    with disk_errors(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        aside = f".export-{destination.name}-"
        for leftover in destination.parent.glob(f"{aside}*"):
            shutil.rmtree(leftover)  # of an export that was killed
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=aside) as work:
            folder = Path(work, "bundle")
            folder.mkdir()
            yield folder
            for path in folder.iterdir():
                path.chmod(0o644)  # the graph's data file is created private
            _replace(folder, destination, Path(work, "old"))


def _refuse_foreign(destination: Path, sidecar: str) -> None:
    """Replace only a folder of the same kind; anything else belongs to the user."""
    if destination.exists() and not (destination / sidecar).is_file():
        raise ExportError(
            f"Expected a bundle with a {sidecar} at {destination}, found something else.",
            "Choose another folder, or remove it first.",
        )


def _replace(new: Path, destination: Path, old: Path) -> None:
    if destination.exists():
        shutil.move(destination, old)
    new.replace(destination)
