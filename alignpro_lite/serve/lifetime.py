"""A server that ends with the program that started it, however that ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

_PATIENCE = 1.2
"""Seconds after which a server that was asked to end is ended; with all else it is below 2."""
_POLL_SECONDS = 0.25
GRACE_SECONDS = 5
"""What is under way may take so long when the server is told to end by a signal."""


class Lifetime:
    """Ends this process when its owner is gone: at once while models load, orderly afterwards."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal may come while it is held
        self._stop: Callable[[int], None] | None = None

    def running(self, stop: Callable[[int], None]) -> None:
        """Say how to stop from now on.

        Args:
            stop: Takes the seconds that what is under way may still need; called on any thread.
        """
        with self._lock:
            self._stop = stop

    def follow_signals(self) -> None:
        """End at Ctrl-C and SIGTERM once the server runs; a second one does not wait."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop(GRACE_SECONDS))

    def stop(self, grace: int) -> None:
        """Tell the server to end; nothing happens where none runs.

        Args:
            grace: Seconds that what is under way may still need.
        """
        with self._lock:
            stop = self._stop
        if stop is not None:
            stop(grace)

    def follow_process(self, pid: int) -> None:
        """End with a process, also if it is killed."""
        self._after(lambda: wait_for_process(pid))

    def follow_stream(self, stream: IO[bytes]) -> None:
        """End when the other end of a pipe is closed, which a killed process does too."""

        def read_to_end() -> None:
            with suppress(OSError, ValueError):  # what cannot be read is closed
                while stream.read(4096):
                    pass

        self._after(read_to_end)

    def _after(self, wait: Callable[[], None]) -> None:
        def work() -> None:
            wait()
            self._end()

        threading.Thread(target=work, name="lifetime", daemon=True).start()

    def _end(self) -> None:
        self.stop(0)
        if self._stop is not None:
            time.sleep(_PATIENCE)
        # Native code may be in the middle of something, and nobody is there to wait for it.
        os._exit(0)


def wait_for_process(pid: int) -> None:
    """Block until a process has ended; at once if there is none."""
    if sys.platform == "win32":
        _wait_on_windows(pid)
        return
    if sys.platform == "linux":
        try:
            watched = os.pidfd_open(pid)
        except OSError:  # nobody is there, or an old kernel or a container does not know it
            pass
        else:
            select.select([watched], [], [])
            os.close(watched)
            return
    while _is_there(pid):
        time.sleep(_POLL_SECONDS)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if sys.platform == "win32":
    import ctypes

    def _wait_on_windows(pid: int) -> None:
        synchronize, infinite = 0x00100000, 0xFFFFFFFF
        kernel = ctypes.WinDLL("kernel32")
        kernel.OpenProcess.restype = ctypes.c_void_p
        if handle := kernel.OpenProcess(synchronize, False, pid):
            kernel.WaitForSingleObject(ctypes.c_void_p(handle), infinite)
