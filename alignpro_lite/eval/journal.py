"""JSON lines that a run writes as it goes; only a line that a kill cut short is ever dropped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignpro_lite.errors import InputError
from alignpro_lite.registry.storage import disk_errors

CURE = "Delete that line: what it held is computed again."
"""The cure for a line that cannot be used."""


class Journal:
    """A file of JSON objects, each naming the run that it belongs to under `run`."""

    def __init__(self, file: Path, run: str) -> None:
        """Name a file; it need not exist.

        Args:
            file: The file.
            run: Names the configuration and the models; results of two runs never mix.
        """
        self.file = file
        self._run = run

    def read(self) -> list[dict[str, Any]]:
        """All rows, in order; a last line without an end is dropped from the file.

        Raises:
            InputError: A line is damaged, or belongs to another run.
        """
        if not self.file.exists():
            return []
        lines = self.file.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
            os.truncate(self.file, sum(map(len, lines)))
        return [self._row(number, line) for number, line in enumerate(lines, start=1)]

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows, all at once.

        Raises:
            RegistryError: They cannot be written.
        """
        text = "".join(
            json.dumps({**row, "run": self._run}, ensure_ascii=False) + "\n" for row in rows
        )
        with (
            disk_errors(self.file),
            self.file.open("a", encoding="utf-8", newline="\n") as handle,
        ):
            handle.write(text)

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{self.file}: line {number} is not JSON ({error}).",
                CURE,
            ) from error
        if not isinstance(row, dict) or row.pop("run", None) != self._run:
            raise InputError(
                f"{self.file}: line {number} belongs to another configuration or other models.",
                "Choose another --output, or move that file away.",
            )
        return row
