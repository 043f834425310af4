"""Where a server listens, and how it runs until it is told to end."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from alignpro_lite.errors import DeviceError, InputError
from alignpro_lite.registry.http import is_loopback
from alignpro_lite.serve.lifetime import Lifetime

_HEADER_BYTES = 1 << 16
_CONNECTIONS = 1000
_KEEP_ALIVE_SECONDS = 75


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        host: A name or an IP address of this machine.
        port: 0 takes a free one.
        path: A Unix socket instead.
    """

    host: str = "127.0.0.1"
    port: int = 0
    path: Path | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine get there."""
        return self.path is not None or is_loopback(self.host.lower())


@contextmanager
def bound(address: Address) -> Iterator[socket.socket]:
    """A socket that has the address; nobody can connect before the server listens.

    Raises:
        InputError: The address is taken, or is none of this machine.
    """
    if address.path is not None:
        with _bound_path(address.path) as listener:
            yield listener
        return
    with _bound_port(address.host, address.port) as listener:
        yield listener


def _bound_port(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with _closed_on_failure(socket.socket(family, kind, protocol)) as listener:
            if os.name == "posix":  # elsewhere it would let two servers share the port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            return listener
    except (OSError, UnicodeError) as error:  # a name that can be none is a UnicodeError
        raise InputError(
            f"The server cannot have {host}, port {port} ({_why(error)}).",
            "Choose another --host or --port; --port 0 takes a free one.",
        ) from error


@contextmanager
def _bound_path(path: Path) -> Iterator[socket.socket]:
    if not hasattr(socket, "AF_UNIX"):
        raise InputError("This system has no Unix sockets.", "Use --port 0.")
    before = os.umask(0o177)  # for this user alone
    try:
        _require_free(path)
        with _closed_on_failure(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as listener:
            listener.bind(str(path))
    except OSError as error:
        raise InputError(
            f"There can be no socket at {path} ({_why(error)}).", "Choose another path."
        ) from error
    finally:
        os.umask(before)
    try:
        with listener:
            yield listener
    finally:
        path.unlink(missing_ok=True)


def _why(error: OSError | UnicodeError) -> str:
    """What the system says, without a number; not every error has words of the system."""
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error)


@contextmanager
def _closed_on_failure(opened: socket.socket) -> Iterator[socket.socket]:
    try:
        yield opened
    except BaseException:
        opened.close()
        raise


def _require_free(path: Path) -> None:
    """Remove a socket that nobody listens to any more.

    Raises:
        InputError: Somebody does, or it is something else.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise InputError(f"{path} exists and is no socket.", "Choose another path.")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            try:
                caller.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise InputError(f"A server listens at {path} already.", "End it, or choose another path.")


class _Server(uvicorn.Server):
    """A server that says when it listens, and leaves signals to whoever runs it."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: uvicorn would raise them again at the end, which skips what is to be closed."""
        yield

    def stop(self, grace: int) -> None:
        """Take no more requests and cancel those that take longer; at the second call, all."""
        self.config.timeout_graceful_shutdown = grace
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(
    app: ASGIApp, listener: socket.socket, lifetime: Lifetime, ready: Callable[[], None]
) -> None:
    """Serve until the end of the lifetime.

    Args:
        app: What answers.
        listener: Bound, see `bound`.
        lifetime: May end the server.
        ready: Called once clients can connect.

    Raises:
        DeviceError: The server could not start.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # faults of the application are logged by itself
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    server = _Server(config, ready)
    lifetime.running(server.stop)
    asyncio.run(server.serve([listener]))
    if not server.started:
        raise DeviceError("The server could not start.", "Run it again with another --port.")
