"""Wheels of a Python package index, in its JSON form (PEP 691) or HTML form (PEP 503)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, unquote, urldefrag, urljoin, urlsplit

import msgspec

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.download import ExpectedFile, download, read_page
from alignpro_lite.registry.http import Remote
from alignpro_lite.registry.storage import OnProgress, no_progress, sha256_of

INDEX_VARIABLE = "PIP_INDEX_URL"
DEFAULT_INDEX = "https://pypi.org/simple/"

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
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
    answer = read_page(Remote(page, index.authorization), _ACCEPT, "the package index")
    is_json = answer.media_type.endswith("json")
    listed = _parse_json(answer.body) if is_json else _parse_html(answer.body)
    wheels = (link for link in _followed(page, listed) if _fits(link.name, package, version))
    found = next(wheels, None)
    if found is None:
        raise RegistryError(
            f"{page} lists no wheel of {package}=={version} for every platform.",
            "Correct the source in models.toml.",
        )
    path = folder / found.name
    if not path.exists() or sha256_of(path, found.name, on_progress) != found.sha256:
        same_origin = urlsplit(found.href)[:2] == urlsplit(page)[:2]
        remote = Remote(found.href, index.authorization) if same_origin else Remote.at(found.href)
        expected = ExpectedFile(found.name, found.sha256, found.size, _WHEEL_CURE)
        download(remote, path, expected, on_progress)
    return path


@dataclass(frozen=True)
class _Link:
    """A file that an index lists.

    Attributes:
        href: Its address, which may be relative to the page.
        sha256: Its digest, None if the index has none.
        size: Its bytes, likewise.
    """

    href: str
    sha256: str | None = None
    size: int | None = None

    @property
    def name(self) -> str:
        """The name of the file."""
        return unquote(urlsplit(self.href).path.rpartition("/")[2])


def _followed(page: str, links: Iterable[_Link]) -> Iterator[_Link]:
    """Links with whole addresses; one that is no address leads nowhere and is left out."""
    for link in links:
        try:
            url, fragment = urldefrag(urljoin(page, link.href))
            whole = replace(
                link, href=url, sha256=link.sha256 or parse_qs(fragment).get("sha256", [None])[0]
            )
            whole.name  # noqa: B018 - raises too
        except ValueError:
            continue
        yield whole


def _fits(filename: str, package: str, version: str) -> bool:
    """Tell whether a wheel's name (PEP 427) is that package and version, for any platform."""
    if not re.fullmatch(r"[A-Za-z0-9._+!-]*-none-any\.whl", filename):
        return False
    name, found_version, *_ = filename.split("-")
    return _normal(name) == _normal(package) and found_version == version.replace("-", "_")


def _normal(package: str) -> str:
    """Return a package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _parse_json(body: bytes) -> list[_Link]:
    try:
        return msgspec.json.decode(body, type=_Page).links()
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise RegistryError("The package index answered with broken JSON.", _INDEX_CURE) from error


def _parse_html(body: bytes) -> list[_Link]:
    anchors = _Anchors()
    try:
        anchors.feed(body.decode("utf-8", errors="replace"))
    except AssertionError as error:  # html.parser raises it for broken declarations
        raise RegistryError("The package index answered with broken HTML.", _INDEX_CURE) from error
    return [_Link(href) for href in anchors.hrefs]


class _PageFile(msgspec.Struct):
    """A file as PEP 691 lists it; `size` is PEP 700's."""

    url: str
    hashes: dict[str, str] = {}
    size: int | None = None


class _Page(msgspec.Struct):
    """What PEP 691 says of a package."""

    files: list[_PageFile]

    def links(self) -> list[_Link]:
        """The files, digests in the lower case that they are compared in."""
        return [
            _Link(file.url, file.hashes.get("sha256", "").lower() or None, file.size)
            for file in self.files
        ]


class _Anchors(HTMLParser):
    """Collect the href of every link."""

    def __init__(self) -> None:
        super().__init__()
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the href of an `a` element."""
        if tag == "a":
            self.hrefs += [value for name, value in attrs if name == "href" and value]
