"""The fast decoder graph: onnxruntime-genai's model builder, run as a program.

It writes GroupQueryAttention on shared past/present buffers. Only its float graphs are used; they
are quantised in `quantise`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from alignpro_lite.errors import MissingDependencyError
from alignpro_lite.export.child import run_python


def build_graph(folder: Path, destination: Path, precision: Literal["fp16", "fp32"]) -> Path:
    """Build the shared-buffer decoder graph of a Hugging Face folder.

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
