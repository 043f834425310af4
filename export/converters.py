"""Converters of other projects, run in a child process, offline, with a failure as an error."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alignpro_lite.errors import ExportError, MissingDependencyError

OptimumTask = Literal["text-generation-with-past", "token-classification"]
"""optimum's names for what a graph does; with past means with a growing key/value cache."""

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


def build_graph(folder: Path, destination: Path, precision: Literal["fp16", "fp32"]) -> Path:
    """Build the fast decoder graph of a Hugging Face folder by onnxruntime-genai's model builder.

    It has GroupQueryAttention on shared past/present buffers. Only its float graphs are used; they
    are quantised in `quantise`.

    Args:
        folder: A folder written by `TorchModel.save_folder`.
        destination: An existing folder for the graph.
        precision: Weights, cache and logits alike.

    Returns:
        The path of model.onnx; its data is in the same folder.

    Raises:
        ExportError: The builder failed.
        MissingDependencyError: onnxruntime-genai is not installed.
    """
    arguments = [
        str(_program()),
        *("--input", str(folder)),
        *("--output", str(destination)),
        *("--precision", precision),
        # The builder ties half precision to a GPU provider; the graph itself is portable.
        *("--execution_provider", "cuda" if precision == "fp16" else "cpu"),
        *("--cache_dir", str(destination / "cache")),
        # Its own sharing costs a transposed copy of the table at every start.
        *("--extra_options", "shared_embeddings=false", "hf_token=false"),
    ]
    run_python(arguments, "onnxruntime-genai's model builder")
    return destination / "model.onnx"


def _program() -> Path:
    """Find the builder's script; running it by path makes its sibling modules importable."""
    package = importlib.util.find_spec("onnxruntime_genai")
    if package is None or not package.submodule_search_locations:
        raise MissingDependencyError(
            "The prompter export needs onnxruntime-genai, which is not installed.",
            "Run `pip install 'alignpro-lite[export]'`.",
        )
    return Path(package.submodule_search_locations[0]) / "models" / "builder.py"


def export_reference(folder: Path, destination: Path, task: OptimumTask) -> Path:
    """Export a Hugging Face folder as a plain fp32 graph by optimum: rewards, and other decoders.

    A decoder's attention is unfused and its cache grows by copying: it runs anywhere, but slowly.

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
