"""Variables that native libraries read while they start, in the environment only for that long."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SPIN_COUNT = 3000
"""How long llama.cpp's threads spin at a barrier before they sleep. By default they spin for
milliseconds, so that one other program that keeps a core busy makes every token wait for a
descheduled thread at hundreds of barriers. Measured on 2 cores with one of them busy: 1 to 2 tok/s
by default, 33 with this; with both free, 137 and 139."""

_FORCED = {"ORT_DISABLE_TELEMETRY": "1"}
_USUAL = {
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # the order NVML counts in
    "GOMP_SPINCOUNT": str(SPIN_COUNT),  # read by GNU OpenMP when it is loaded
}
"""These the user may set otherwise."""

_lock = threading.Lock()
_blocks = 0
_before: dict[str, str | None] = {}


@contextmanager
def native_settings(module: str | None = None) -> Iterator[None]:
    """Set the variables inside the block, and leave the environment as it was.

    Blocks of several threads may overlap: the first one sets, the last one restores.

    Args:
        module: What the block imports; nothing is set if that has been imported already.
    """
    global _blocks
    if module in sys.modules:
        yield
        return
    with _lock:
        if _blocks == 0:
            _before.update({name: os.environ.get(name) for name in (*_FORCED, *_USUAL)})
            os.environ.update({**_USUAL, **os.environ, **_FORCED})
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if _blocks == 0:
                _restore()


def _restore() -> None:
    for name, value in _before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
