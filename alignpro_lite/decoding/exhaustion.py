"""Memory that ran out, told apart from a damaged file by what a native library says."""

from __future__ import annotations

import re
from pathlib import Path

from alignpro_lite.errors import DeviceError

_SIGNS = re.compile(
    r"allocat|bad_alloc|out of memory|cannot allocate|mmap failed|MemoryError|std::length_error",
    re.IGNORECASE,
)


def exhausted(path: Path, reason: str) -> DeviceError | None:
    """The error for a model that does not fit; None if something else is wrong.

    Args:
        path: The model.
        reason: What the library said.
    """
    if not _SIGNS.search(reason):
        return None
    return DeviceError(
        f"There is not enough memory to load {path} ({reason}).",
        "Free some, lower --ctx or --n-gpu-layers, or use a smaller model.",
    )
