"""The Microsoft Visual C++ runtime, which llama.cpp and onnxruntime need on Windows.

Python brings a part of it. A machine that lacks the rest cannot load either engine, and Windows
says no more than "DLL load failed".
"""

from __future__ import annotations

import ctypes

from alignpro_lite.errors import MissingDependencyError

VC_LIBRARIES = ("vcruntime140.dll", "vcruntime140_1.dll", "msvcp140.dll")
_INSTALLER = "https://aka.ms/vs/17/release/vc_redist.x64.exe"


def require_vc_runtime() -> None:
    """Load the runtime's libraries; for Windows alone.

    Raises:
        MissingDependencyError: Some are missing; the cure is where to get them.
    """
    missing = [name for name in VC_LIBRARIES if not _loads(name)]
    if missing:
        raise MissingDependencyError(
            f"The Visual C++ runtime lacks {', '.join(missing)}.",
            f"Install {_INSTALLER}, or ship these files beside the app's own program.",
        )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
