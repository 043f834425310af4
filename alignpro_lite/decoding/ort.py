"""The one place that imports onnxruntime at run time: on first use, with its telemetry off."""

from __future__ import annotations

import os
from typing import Any

from alignpro_lite.errors import MissingDependencyError


def onnxruntime() -> Any:
    """Import onnxruntime.

    Raises:
        MissingDependencyError: It is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order NVML counts in
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"Prompters and exported rewards need onnxruntime, which does not load ({error}).",
            'Run `pip install "alignpro-lite[cpu]"`, or `pip install "alignpro-lite[cuda]"` '
            "for an NVIDIA GPU.",
        ) from error
    return onnxruntime
