"""Converters of other projects, run in a child process, offline, with a failure as an error."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from alignpro_lite.decoding.child import how_it_ended, run_child
from alignpro_lite.errors import ExportError, MissingDependencyError, RegistryError, reason_in

OptimumTask = Literal["text-generation-with-past", "token-classification"]
"""optimum's names for what a graph does; with past means with a growing key/value cache."""

_DISK = re.compile(
    "|".join(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)))
    + r"|\d+ requested and \d+ written"  # numpy's words for it
)
"""What a converter says whose disk is the fault, and not the model."""

_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def run_converter(program: str | Path, arguments: Sequence[str], what: str) -> None:
    """Run a converter in an interpreter of its own, and wait for it.

    That keeps its global module names and memory out of this process. It takes as long as the model
    is large, so it has no deadline; it ends with this process.

    Args:
        program: A module by its dotted name, or the path of a script.
        arguments: Its command line.
        what: What runs, for the message.

    Raises:
        ExportError: The converter failed; the message holds what it wrote of that.
        RegistryError: The disk is full or read-only.
    """
    ended = run_child(program, arguments, seconds=None, environment=_OFFLINE)
    if ended.code:
        killed = f"ended by {how_it_ended(ended.code)}" if ended.code < 0 else ""
        said = reason_in(ended.errors) or reason_in(ended.output) or f"exit code {ended.code}"
        if _DISK.search(said):
            raise RegistryError(
                f"{what} could not write its result ({said}).",
                "Free some space, or choose another disk.",
            )
        raise ExportError(
            f"{what} failed ({killed or said}).",
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
        *("--input", str(folder)),
        *("--output", str(destination)),
        *("--precision", precision),
        # The builder ties half precision to a GPU provider; the graph itself is portable.
        *("--execution_provider", "cuda" if precision == "fp16" else "cpu"),
        *("--cache_dir", str(destination / "cache")),
        # Its own sharing costs a transposed copy of the table at every start.
        *("--extra_options", "shared_embeddings=false", "hf_token=false"),
    ]
    run_converter(_builder(), arguments, "onnxruntime-genai's model builder")
    return destination / "model.onnx"


def _builder() -> Path:
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
        *("--model", str(folder)),
        *("--task", task),
        # This package's parity check replaces optimum's own, which only prints.
        "--no-post-process",
        str(destination),
    ]
    run_converter("optimum.exporters.onnx", arguments, "optimum's export")
    return destination / "model.onnx"
