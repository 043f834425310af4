"""The optional packages that some commands need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Literal

from alignpro_lite.errors import MissingDependencyError

_EXTRAS: dict[str, tuple[str, Sequence[str]]] = {
    "export": (
        "The export",
        ("torch", "transformers", "onnx", "peft", "optimum", "onnxruntime_genai", "gguf"),
    ),
    "train": (
        "Training",
        ("torch", "transformers", "peft", "accelerate", "tensorboardX", "onnxruntime"),
    ),
    "eval": ("An evaluation", ("matplotlib", "tqdm", "onnxruntime")),
    "serve": ("The server", ("starlette", "uvicorn", "httpx")),
}
"""What needs each extra, and the packages it brings, by import name."""


def require_extra(extra: Literal["export", "train", "eval", "serve"]) -> None:
    """Make sure that the packages of an extra are installed.

    Raises:
        MissingDependencyError: One of them cannot be imported.
    """
    import_module("alignpro_lite.export")  # first: it turns onnxruntime's telemetry off
    work, packages = _EXTRAS[extra]
    for package in packages:
        try:
            import_module(package)
        except ImportError as error:
            raise MissingDependencyError(
                f"{work} needs {error.name or package}, which is not installed.",
                f'Run `pip install "alignpro-lite[cpu,{extra}]"`.',
            ) from error
