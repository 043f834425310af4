"""Find a wheel on a Python package index, in its JSON form (PEP 691) or HTML form (PEP 503)."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import parse_qs, unquote, urljoin, urlsplit, urlunsplit

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.download import read_page
from alignpro_lite.registry.http import Remote

INDEX_VARIABLE = "PIP_INDEX_URL"
DEFAULT_INDEX = "https://pypi.org/simple/"

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_PAGE_LIMIT_BYTES = 64 << 20
_INDEX_CURE = f"Check {INDEX_VARIABLE}, which should point to a simple index."


@dataclass(frozen=True)
class Wheel:
    """A wheel on an index.

    Attributes:
        filename: Its file name.
        remote: Where it is downloaded.
        sha256: The digest that the index promises, None when it promises none.
    """

    filename: str
    remote: Remote
    sha256: str | None


def find_wheel(package: str, version: str) -> Wheel:
    """Return the wheel of a package that fits every platform.

    The index is the one in `PIP_INDEX_URL`, else PyPI. A user and password in that
    address are sent to its host only.

    Raises:
        RegistryError: The index cannot be read or has no such wheel.
    """
    index = _split_credentials(os.environ.get(INDEX_VARIABLE) or DEFAULT_INDEX)
    url = f"{index.url.rstrip('/')}/{_normal(package)}/"
    media_type, body = read_page(Remote(url, index.authorization), _ACCEPT, _PAGE_LIMIT_BYTES)
    listed = _parse_json(body) if media_type.endswith("json") else _parse_html(body)
    wheels = [_wheel(urljoin(url, href), sha256, url, index) for href, sha256 in listed]
    for wheel in wheels:
        if _fits(wheel.filename, package, version):
            return wheel
    raise RegistryError(
        f"{url} lists no wheel of {package}=={version} for every platform.",
        "Correct the source in models.toml.",
    )


def _wheel(url: str, sha256: str | None, page: str, index: Remote) -> Wheel:
    parts = urlsplit(url)
    same_origin = (parts.scheme, parts.netloc) == urlsplit(page)[:2]
    remote = Remote(
        urlunsplit(parts._replace(fragment="")), index.authorization if same_origin else None
    )
    return Wheel(unquote(parts.path.rpartition("/")[2]), remote, sha256)


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
    return [(href, _fragment_digest(href)) for href in anchors.hrefs]


def _fragment_digest(href: str) -> str | None:
    values: Iterable[str] = parse_qs(href.partition("#")[2]).get("sha256", [])
    return next(iter(values), None)


class _Anchors(HTMLParser):
    """Collect the href of every link."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the href of an `a` element."""
        if tag == "a":
            self.hrefs += [value for name, value in attrs if name == "href" and value]


def _split_credentials(index: str) -> Remote:
    """Move the user and password of an address into an Authorization header."""
    match = re.fullmatch(r"(https?://)([^/]*)@([^/@]*(?:/.*)?)", index)
    if match is None:
        return Remote(index)
    scheme, credentials, rest = match.groups()
    token = base64.b64encode(unquote(credentials).encode()).decode()
    return Remote(scheme + rest, f"Basic {token}")
