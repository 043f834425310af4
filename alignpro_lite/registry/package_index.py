"""Wheels of a Python package index, in its JSON form (PEP 691) or HTML form (PEP 503)."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urldefrag, urljoin, urlsplit

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.download import ExpectedFile, download, read_page
from alignpro_lite.registry.http import Remote
from alignpro_lite.registry.storage import OnProgress, no_progress, sha256_of

INDEX_VARIABLE = "PIP_INDEX_URL"
DEFAULT_INDEX = "https://pypi.org/simple/"

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_PAGE_LIMIT_BYTES = 64 << 20
_WHEEL_CURE = "Pull it again; if that fails too, the package index is at fault."
_INDEX_CURE = f"Check {INDEX_VARIABLE}, which should point to a simple index."


def download_wheel(
    package: str, version: str, folder: Path, on_progress: OnProgress = no_progress
) -> Path:
    """Bring the wheel of a package that fits every platform into a folder, or find it there.

    The index is the one in `PIP_INDEX_URL`, else PyPI. A user and password in that
    address are sent to its host only.

    Raises:
        RegistryError: The index cannot be read or has no such wheel, or the download fails.
    """
    index = Remote.at(os.environ.get(INDEX_VARIABLE) or DEFAULT_INDEX)
    page = f"{index.url.rstrip('/')}/{_normal(package)}/"
    media_type, body = read_page(Remote(page, index.authorization), _ACCEPT, _PAGE_LIMIT_BYTES)
    listed = _parse_json(body) if media_type.endswith("json") else _parse_html(body)
    wheels = ((urldefrag(urljoin(page, href)).url, sha256) for href, sha256 in listed)
    found = next((wheel for wheel in wheels if _fits(_name(wheel[0]), package, version)), None)
    if found is None:
        raise RegistryError(
            f"{page} lists no wheel of {package}=={version} for every platform.",
            "Correct the source in models.toml.",
        )
    url, sha256 = found
    name = _name(url)
    path = folder / name
    if not path.exists() or sha256_of(path, name, on_progress) != sha256:
        same_origin = urlsplit(url)[:2] == urlsplit(page)[:2]
        remote = Remote(url, index.authorization if same_origin else None)
        download(remote, path, ExpectedFile(name, sha256, None, _WHEEL_CURE), on_progress)
    return path


def _name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def _fits(filename: str, package: str, version: str) -> bool:
    """Tell whether a wheel's name (PEP 427) is that package and version, for any platform."""
    if not filename.endswith("-none-any.whl") or "/" in filename or "\\" in filename:
        return False
    name, found_version, *_ = filename.split("-")
    return _normal(name) == _normal(package) and found_version == version.replace("-", "_")


def _normal(package: str) -> str:
    """Return a package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _parse_json(body: bytes) -> list[tuple[str, str | None]]:
    try:
        files = json.loads(body)["files"]
        return [(str(file["url"]), file.get("hashes", {}).get("sha256")) for file in files]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RegistryError("The package index answered with broken JSON.", _INDEX_CURE) from error


def _parse_html(body: bytes) -> list[tuple[str, str | None]]:
    anchors = _Anchors()
    anchors.feed(body.decode("utf-8", errors="replace"))
    fragments = [parse_qs(urldefrag(href).fragment) for href in anchors.hrefs]
    digests = [fragment.get("sha256", [None])[0] for fragment in fragments]
    return list(zip(anchors.hrefs, digests, strict=True))


class _Anchors(HTMLParser):
    """Collect the href of every link."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the href of an `a` element."""
        if tag == "a":
            self.hrefs += [value for name, value in attrs if name == "href" and value]
