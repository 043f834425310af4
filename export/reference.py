"""Plain graphs by optimum: reward models, and decoders of architectures without a fast path.

A decoder's attention is unfused and its cache grows by copying, so it runs anywhere, but slowly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from alignpro_lite.export.child import run_python

OptimumTask = Literal["text-generation-with-past", "token-classification"]
"""optimum's names for what a graph does; with past means with a growing key/value cache."""


def export_reference(folder: Path, destination: Path, task: OptimumTask) -> Path:
    """Export a Hugging Face folder with optimum, fp32.

    Args:
        folder: Model and tokenizer.
        destination: An existing folder for the graph.
        task: What the graph does.

    Returns:
        The path of model.onnx.

    Raises:
        ExportError: optimum failed.
    """
    arguments = [
        *("-m", "optimum.exporters.onnx"),
        *("--model", str(folder)),
        *("--task", task),
        # This package's parity check replaces optimum's own, which only prints.
        "--no-post-process",
        str(destination),
    ]
    run_python(arguments, "optimum's export")
    return destination / "model.onnx"
