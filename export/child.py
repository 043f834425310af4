"""Run a converter of another project in a child process, offline, with its failure as an error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from alignpro_lite.errors import ExportError

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def run_python(arguments: Sequence[str], what: str) -> None:
    """Run this interpreter with arguments and wait.

    A child process keeps the converters' global module names and memory out of this process.

    Args:
        arguments: What follows `python`.
        what: What runs, for the message.

    Raises:
        ExportError: The process failed; the message holds its last line.
    """
    finished = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **_OFFLINE},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if finished.returncode != 0:
        lines = (finished.stderr or finished.stdout).strip().splitlines()
        reason = lines[-1].strip() if lines else f"exit code {finished.returncode}"
        raise ExportError(
            f"{what} failed ({reason.rstrip('.')[:300]}).",
            "Check that the model is complete and its architecture is listed in docs/export.md.",
        )
