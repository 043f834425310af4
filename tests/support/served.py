"""A server of this package on a thread, at a free port of 127.0.0.1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from alignpro_lite.serve.lifetime import Lifetime
from alignpro_lite.serve.listening import Address, bound, listen


@dataclass(frozen=True)
class Served:
    """Where the server listens."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def served(app: ASGIApp) -> Iterator[Served]:
    """Serve until the block ends."""
    lifetime, ready = Lifetime(), threading.Event()
    with bound(Address()) as listener:
        work = threading.Thread(target=listen, args=(app, listener, lifetime, ready.set))
        work.start()
        try:
            assert ready.wait(10)
            yield Served(listener.getsockname()[1])
        finally:
            lifetime.stop(1)
            work.join(10)
            assert not work.is_alive()
