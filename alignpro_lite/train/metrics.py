"""Metrics of a run: JSON lines for programs, TensorBoard for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from alignpro_lite.registry.storage import write_text

METRICS = "metrics.jsonl"


class Metrics:
    """Writes one line a step; lines after the step that a run resumes from are dropped."""

    def __init__(self, run: Path, step: int) -> None:
        """Open both logs.

        Args:
            run: The folder of the run.
            step: Steps done; 0 for a new run.
        """
        self._file = run / METRICS
        _keep_until(self._file, step)
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add the values of a step."""
        with self._file.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is buffered."""
        self._board.close()


def read_metrics(run: Path) -> list[dict[str, float]]:
    """All lines of a run, in order, except a last one that a kill cut short."""
    file = run / METRICS
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _keep_until(file: Path, step: int) -> None:
    kept = [line for line in read_metrics(file.parent) if line["step"] <= step]
    write_text(file, "".join(json.dumps(line) + "\n" for line in kept))
