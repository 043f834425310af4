"""Lets the process keep memory that torch frees, so that no step has to fault it in again."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_NEVER = -1


def keep_freed_memory() -> None:
    """Tell glibc to serve large tensors from the heap and not to give the heap back.

    By default every large tensor is mapped, zeroed and unmapped. In a virtual machine with 2 cores,
    forward and backward of a 22M encoder over 32 x 290 tokens in bf16 took 2.0 s with this and
    6.1 s without. Other C libraries are left alone.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)
