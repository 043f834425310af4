"""Two paths change places in one step, where the system can do that."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

_HERE = -100
"""AT_FDCWD: relative paths are relative to the current folder."""
_SWAP = 2
"""RENAME_EXCHANGE of Linux, RENAME_SWAP of macOS."""
_UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM)
"""What systems and file systems say that cannot."""


def exchange(first: Path, second: Path) -> bool:
    """Let two existing paths of one file system change places.

    Returns:
        Whether they did; False if the system or the file system cannot.

    Raises:
        OSError: It can, and failed.
    """
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "linux":
        status = _call("renameat2", _HERE, names[0], _HERE, names[1], _SWAP)
    elif sys.platform == "darwin":
        status = _call("renamex_np", *names, _SWAP)
    else:
        return False
    if status not in (0, *_UNKNOWN):
        raise OSError(status, os.strerror(status), str(second))
    return status == 0


def _call(function: str, *arguments: int | bytes) -> int:
    """Call a function of the C library: 0, or its error number."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, function):
        return errno.ENOSYS
    return 0 if getattr(library, function)(*arguments) == 0 else ctypes.get_errno()
