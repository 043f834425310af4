"""The plain decoder graph by optimum: the reference, and the fallback for other architectures.

Its attention is unfused and its cache grows by copying, so it runs anywhere and slowly.
"""

from __future__ import annotations

from pathlib import Path

from alignpro_lite.export.child import run_python


def export_reference(folder: Path, destination: Path) -> Path:
    """Export a Hugging Face folder with optimum, fp32, with a growing key/value cache.

    Args:
        folder: A folder written by `Source.save_folder`.
        destination: An existing folder for the graph.

    Returns:
        The path of model.onnx.

    Raises:
        ExportError: optimum failed.
    """
    arguments = [
        *("-m", "optimum.exporters.onnx"),
        *("--model", str(folder)),
        *("--task", "text-generation-with-past"),
        # The parity check of this package replaces optimum's own, which prints and goes on.
        "--no-post-process",
        str(destination),
    ]
    run_python(arguments, "optimum's export")
    return destination / "model.onnx"
