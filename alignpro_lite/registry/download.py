"""Download one URL into one file: streamed, resumed, checked, and complete or absent."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from alignpro_lite.errors import RegistryError, shown_url
from alignpro_lite.registry.http import (
    HttpError,
    Remote,
    chunks,
    read_body,
    send,
)
from alignpro_lite.registry.storage import (
    CHUNK_BYTES,
    OnProgress,
    Progress,
    commit,
    discard,
    etag_of,
    no_progress,
    partial_of,
    require_space,
    size_of,
)

RETRY_PAUSES = (1.0, 3.0)
"""Seconds between attempts that bring nothing; after any progress the row starts again."""

_Found = TypeVar("_Found")

_OUT_OF_REACH: ContextVar[set[str] | None] = ContextVar("_OUT_OF_REACH", default=None)
"""Hosts, with their schemes; None where nothing is remembered."""

_SPARE_BYTES = 64 << 20
"""What a download of unknown size leaves free."""

_PAGE_LIMIT_BYTES = 64 << 20

_NETWORK_CURE = "Check the network (and HTTPS_PROXY), then run it again: it resumes."
_SOURCE_CURE = (
    "Correct the source in models.toml or as you gave it, or HF_ENDPOINT or PIP_INDEX_URL."
)
_ACCESS_CURE = (
    "Check its name, accept its licence at the source and set HF_TOKEN; for a private package "
    "index put user and password into PIP_INDEX_URL."
)
_STATUS_CURES = {401: _ACCESS_CURE, 403: _ACCESS_CURE}


@contextmanager
def outages_remembered() -> Iterator[None]:
    """Inside, a host that could not be reached is not waited for again, whatever is asked of it."""
    token = _OUT_OF_REACH.set(set())
    try:
        yield
    finally:
        _OUT_OF_REACH.reset(token)


@dataclass(frozen=True)
class ExpectedFile:
    """What a file must turn out to be.

    Attributes:
        label: What people call it.
        sha256: Its digest, None when nothing is known yet.
        size: Its bytes, None when unknown.
        cure: What helps when it turns out to be something else.
    """

    label: str
    sha256: str | None
    size: int | None
    cure: str

    def check(self, digest: str, size: int) -> None:
        """Compare with what was found.

        Raises:
            RegistryError: Digest or size differ.
        """
        self.check_size(size)
        if self.sha256 is not None and digest != self.sha256:
            raise RegistryError(
                f"{self.label}: expected sha256 {self.sha256}, found {digest}.", self.cure
            )

    def check_size(self, size: int) -> None:
        """Compare with the size that was found.

        Raises:
            RegistryError: It differs.
        """
        if self.size is not None and size != self.size:
            raise RegistryError(
                f"{self.label}: expected {self.size:,} bytes, found {size:,}.", self.cure
            )


def download(
    remote: Remote, destination: Path, expected: ExpectedFile, on_progress: OnProgress = no_progress
) -> str:
    """Download a file, resuming where an earlier call was cut off.

    The bytes grow in `<destination>.partial`, which stays after an interruption. It is
    renamed when it is complete and has the expected digest, and deleted when it has another: then
    a file that began with what was here before, perhaps from another source, is fetched once more.

    Returns:
        The sha256 of the file.

    Raises:
        RegistryError: The network fails for good, or the file is not the expected one.
        OSError: The disk fails.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(destination)
    is_resumed = size_of(partial) > 0
    digest, size = _persist(remote, partial, expected, on_progress)
    try:
        expected.check(digest, size)
    except RegistryError:
        discard(partial)
        if is_resumed:
            return download(remote, destination, expected, on_progress)
        raise
    commit(partial, destination)
    discard(partial)
    return digest


@dataclass(frozen=True)
class Page:
    """A page that a server answered with.

    Attributes:
        media_type: Of the body, such as `application/json`.
        body: All of it.
        links: The `Link` header (RFC 8288), empty if there is none.
    """

    media_type: str
    body: bytes
    links: str


def read_page(remote: Remote, accept: str, what: str) -> Page:
    """Read a page of a package index or a hub.

    Args:
        remote: Where it is.
        accept: The media types that are understood.
        what: What it is, for messages.

    Raises:
        RegistryError: It cannot be read, or is too long.
    """

    def read() -> Page:
        with send(remote, {"Accept": accept}) as response:
            body = read_body(remote, response, _PAGE_LIMIT_BYTES)
            media_type = response.headers.get_content_type()
            return Page(media_type, body, response.headers.get("Link", ""))

    try:
        return _repeated(remote, read, lambda: 0)
    except HttpError as error:
        raise _registry_error(f"Reading {what} failed: {error}.", error) from error


def _persist(
    remote: Remote, partial: Path, expected: ExpectedFile, on_progress: OnProgress
) -> tuple[str, int]:
    try:
        return _repeated(
            remote,
            lambda: _attempt(remote, partial, expected, on_progress),
            lambda: size_of(partial),
        )
    except HttpError as error:
        raise _registry_error(f"{expected.label}: {error}.", error) from error


def _repeated(remote: Remote, attempt: Callable[[], _Found], progress: Callable[[], int]) -> _Found:
    """Try again after what may pass; what cannot be reached before anything came, never.

    Args:
        remote: What is asked.
        attempt: What is tried.
        progress: The bytes that are here; attempts that bring some do not count.

    Raises:
        HttpError: The last attempt failed, or an outage of the host is remembered.
    """
    host = "/".join(remote.url.split("/", 3)[:3])
    known = _OUT_OF_REACH.get()
    if known and host in known:
        problem = f"{shown_url(remote.url)} was not tried, because its host cannot be reached"
        raise HttpError(problem, transient=True, unreachable=True)
    pauses = iter(RETRY_PAUSES)
    begun = progress()
    while True:
        before = progress()
        try:
            return attempt()
        except HttpError as error:
            if progress() > before:
                pauses = iter(RETRY_PAUSES)
            may_pass = error.transient and not (error.unreachable and progress() <= begun)
            pause = next(pauses, None) if may_pass else None
            if pause is None:
                if error.unreachable and known is not None:
                    known.add(host)
                raise
            time.sleep(max(pause, error.retry_after))


def _attempt(
    remote: Remote, partial: Path, expected: ExpectedFile, on_progress: OnProgress
) -> tuple[str, int]:
    """Read the rest of a file; return the digest and the size of all of it."""
    offset = _trusted_size(partial, expected)
    if expected.size is not None and offset >= expected.size:
        return _hash_start(partial).hexdigest(), offset
    try:
        return _read_rest(remote, partial, offset, expected, on_progress)
    except HttpError as error:
        if error.status != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        nothing_left = f"bytes */{offset}"
        if error.headers.get("Content-Range") == nothing_left:
            return _hash_start(partial).hexdigest(), offset
        discard(partial)
        raise HttpError("the file at the source has changed", transient=True) from error


def _read_rest(
    remote: Remote, partial: Path, offset: int, expected: ExpectedFile, on_progress: OnProgress
) -> tuple[str, int]:
    with send(remote, _range_headers(partial, offset)) as response:
        offset = _align(partial, offset, response)
        total = _total_size(response, offset)
        _refuse_wrong_file(response, total, expected)
        if offset == 0:
            _keep_etag(partial, response)
        require_space(partial.parent, (total or offset) - offset)
        hasher = _hash_start(partial)
        with partial.open("ab") as sink:
            for chunk in chunks(response):
                offset += len(chunk)
                _refuse_endless(partial, offset, total, expected)
                sink.write(chunk)
                hasher.update(chunk)
                on_progress(Progress(expected.label, offset, total))
    if total is not None and offset != total:
        raise HttpError(f"the connection ended at {offset:,} of {total:,} bytes", transient=True)
    return hasher.hexdigest(), offset


def _refuse_endless(partial: Path, offset: int, total: int | None, expected: ExpectedFile) -> None:
    """Stop a body that goes on behind its declared size, or without one until the disk is full."""
    try:
        if expected.size is not None and offset > expected.size:
            raise RegistryError(
                f"{expected.label}: expected {expected.size:,} bytes, the source sends more.",
                expected.cure,
            )
        if total is None and expected.size is None:
            require_space(partial.parent, _SPARE_BYTES)
    except RegistryError:
        discard(partial)
        raise


def _trusted_size(partial: Path, expected: ExpectedFile) -> int:
    """Return how many bytes may be kept: all when a digest or an ETag will vouch for them."""
    if expected.sha256 is None and _etag(partial) is None:
        discard(partial)
    return size_of(partial)


def _etag(partial: Path) -> str | None:
    """The version of what an unfinished download is a part of."""
    file = etag_of(partial)
    etag = file.read_text("latin-1") if file.exists() else ""
    return etag if etag and etag.isprintable() else None


def _keep_etag(partial: Path, response: http.client.HTTPResponse) -> None:
    etag = response.headers.get("ETag")
    # A weak ETag (W/) does not promise equal bytes, so it cannot vouch for a part.
    if etag and not etag.startswith("W/"):
        etag_of(partial).write_text(etag, "latin-1", errors="replace")


def _hash_start(partial: Path) -> hashlib._Hash:
    hasher = hashlib.sha256()
    if partial.exists():
        with partial.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                hasher.update(chunk)
    return hasher


def _range_headers(partial: Path, offset: int) -> dict[str, str]:
    if offset == 0:
        return {}
    etag = _etag(partial)
    return {"Range": f"bytes={offset}-"} | ({"If-Range": etag} if etag else {})


def _align(partial: Path, offset: int, response: http.client.HTTPResponse) -> int:
    """Make the partial end where the response begins, and return that offset."""
    if response.status != http.client.PARTIAL_CONTENT:
        discard(partial)
        return 0
    start = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
    if start is None or int(start[1]) != offset:
        discard(partial)
        raise HttpError(f"the server did not continue at byte {offset:,}", transient=True)
    return offset


def _total_size(response: http.client.HTTPResponse, offset: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return offset + int(length) if re.fullmatch("[0-9]{1,18}", length) else None


def _refuse_wrong_file(
    response: http.client.HTTPResponse, total: int | None, expected: ExpectedFile
) -> None:
    """Refuse before a gigabyte is read what cannot be the expected file."""
    if response.headers.get_content_type() == "text/html":
        raise RegistryError(
            f"{expected.label}: expected a file, found a web page at {shown_url(response.url)}.",
            "Check that the network needs no login page, and the source in models.toml.",
        )
    if total is not None:
        expected.check_size(total)


def _registry_error(problem: str, error: HttpError) -> RegistryError:
    usual = _NETWORK_CURE if error.transient else _SOURCE_CURE
    return RegistryError(problem, error.cure or _STATUS_CURES.get(error.status or 0, usual))
