"""A file server on 127.0.0.1 that behaves, and misbehaves, like a model hub."""

from __future__ import annotations

import hashlib
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from alignpro_lite.registry.entries import Entry, File
from alignpro_lite.registry.sources import HubSource

DATA = bytes(range(256)) * 4096  # 1 MiB
DIGEST = hashlib.sha256(DATA).hexdigest()
HALF = len(DATA) // 2
HUB_PATH = "/o/r/resolve/v1/d/f.gguf"


@dataclass
class Hub:
    """What the server serves, and what it was asked."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)  # phrases beside the statuses
    lengths: dict[str, str] = field(default_factory=dict)  # Content-Length, whatever is sent
    links: dict[str, str] = field(default_factory=dict)  # Link, to the next page
    endless: set[str] = field(default_factory=set)  # bodies without a length that never end
    drops: list[int] = field(default_factory=list)  # body bytes before each coming connection ends
    ranges: bool = True
    etag: str | None = '"one"'
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Hub]:
    """Serve until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, hub)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, hub: Hub) -> None:
    headers = {name.lower(): value for name, value in handler.headers.items()}
    hub.requests.append((handler.path, headers))
    if handler.path in hub.redirects:
        handler.send_response(302)
        handler.send_header("Location", hub.redirects[handler.path])
        handler.send_header("Content-Length", "0")
        handler.end_headers()
    elif handler.path in hub.statuses or handler.path not in hub.files:
        handler.send_error(hub.statuses.get(handler.path, 404), hub.reasons.get(handler.path))
    else:
        send_file(handler, hub, headers)


def send_file(handler: BaseHTTPRequestHandler, hub: Hub, headers: dict[str, str]) -> None:
    body = hub.files[handler.path]
    start = 0
    same_version = headers.get("if-range", hub.etag) == hub.etag
    if hub.ranges and "range" in headers and same_version:
        start = int(headers["range"].removeprefix("bytes=").removesuffix("-"))
    if start and start >= len(body):
        handler.send_response(416)
        handler.send_header("Content-Range", f"bytes */{len(body)}")
        handler.end_headers()
        return
    handler.send_response(206 if start else 200)
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    if hub.etag:
        handler.send_header("ETag", hub.etag)
    handler.send_header("Content-Type", hub.types.get(handler.path, "application/octet-stream"))
    if handler.path in hub.links:
        handler.send_header("Link", hub.links[handler.path])
    if handler.path in hub.endless:
        send_for_ever(handler, body)
        return
    handler.send_header("Content-Length", hub.lengths.get(handler.path, str(len(body) - start)))
    handler.end_headers()
    limit = hub.drops.pop(0) if hub.drops else len(body)
    with suppress(OSError):  # the client has gone
        handler.wfile.write(body[start : start + limit])


def send_for_ever(handler: BaseHTTPRequestHandler, body: bytes) -> None:
    """Until the client has had enough."""
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(body)
    except OSError:
        handler.close_connection = True


def leftovers(folder: Path) -> set[str]:
    """Names of what is in a folder."""
    return {path.name for path in folder.iterdir()}


def hub_entry(sha256: str | None = None, size: int | None = None) -> Entry:
    return Entry(
        "target", "t", (HubSource("o/r", "v1", "d/f.gguf"),), (File("f.gguf", sha256, size),)
    )


def everything_said(error: BaseException) -> str:
    """What a traceback of an error and of all its causes shows."""
    return "".join(traceback.format_exception(error))
