"""Download one URL into one file: streamed, resumed, checked, and whole or absent."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.storage import (
    CHUNK_BYTES,
    OnProgress,
    Progress,
    commit,
    etag_of,
    no_progress,
    partial_of,
    require_space,
)

TIMEOUT_SECONDS = 30.0
# Pauses between attempts that bring nothing; any progress starts the row anew.
RETRY_PAUSES = (1.0, 3.0)

_NETWORK_CURE = "Check the network (and HTTPS_PROXY), then run it again: it resumes."
_ACCESS_CURE = (
    "Accept its licence at the source and set HF_TOKEN; for a private package index put "
    "user and password into PIP_INDEX_URL."
)
_STATUS_CURES = {
    401: _ACCESS_CURE,
    403: _ACCESS_CURE,
    404: "Correct the source in models.toml.",
    407: "Put the proxy's user and password into HTTPS_PROXY.",
}
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))


@dataclass(frozen=True)
class Remote:
    """A URL to read.

    Attributes:
        url: http or https.
        authorization: Value of the Authorization header. It is sent to the origin of
            `url` and never follows a redirect to another one.
    """

    url: str
    authorization: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What a file must turn out to be.

    Attributes:
        label: How people call it.
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
        if self.size is not None and size != self.size:
            raise RegistryError(
                f"{self.label}: expected {self.size:,} bytes, found {size:,}.", self.cure
            )
        if self.sha256 is not None and digest != self.sha256:
            raise RegistryError(
                f"{self.label}: expected sha256 {self.sha256}, found {digest}.", self.cure
            )


class _DroppedError(Exception):
    """An attempt that ended early and is worth repeating."""


class _NothingLeftError(Exception):
    """Status 416: the server has nothing after the partial. Holds its Content-Range."""


def download(
    remote: Remote, destination: Path, wanted: Wanted, on_progress: OnProgress = no_progress
) -> str:
    """Download a file, going on where an earlier call was cut off.

    The bytes grow in `<destination>.partial`, which stays after an interruption. It is
    renamed when it is whole and has the wanted digest, and deleted when it has another.

    Returns:
        The sha256 of the file.

    Raises:
        RegistryError: The network fails for good, or the file is not the wanted one.
        OSError: The disk fails.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = _Partial(partial_of(destination), etag_of(destination))
    digest, size = _persist(remote, partial, wanted, on_progress)
    try:
        wanted.check(digest, size)
    except RegistryError:
        partial.discard()
        raise
    commit(partial.path, destination)
    partial.discard()
    return digest


def read_page(remote: Remote, accept: str, limit: int) -> tuple[str, bytes]:
    """Read a small page into memory.

    Args:
        remote: Where it lies.
        accept: Value of the Accept header.
        limit: The most bytes that are read.

    Returns:
        Its media type and its bytes.

    Raises:
        RegistryError: It cannot be read, or is longer than `limit`.
    """
    try:
        with _open(remote, {"Accept": accept}) as response:
            body = b"".join(_chunks(response, limit + 1))
            media_type = response.headers.get_content_type()
    except _DroppedError as dropped:
        raise RegistryError(f"{dropped}.", _NETWORK_CURE) from dropped
    if len(body) > limit:
        raise RegistryError(
            f"{_shown(remote.url)} is longer than {limit:,} bytes.", "Check PIP_INDEX_URL."
        )
    return media_type, body


@dataclass(frozen=True)
class _Partial:
    """An unfinished download and the version (ETag) of what it is a part of."""

    path: Path
    etag_path: Path

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def etag(self) -> str | None:
        return self.etag_path.read_text("utf-8") if self.etag_path.exists() else None

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.etag_path.unlink(missing_ok=True)

    def restart(self, etag: str | None) -> None:
        """Begin with nothing, noting the version that is going to be read."""
        self.discard()
        # A weak ETag (W/) does not promise equal bytes, so it cannot vouch for a part.
        if etag and not etag.startswith("W/"):
            self.etag_path.write_text(etag, "utf-8")


def _persist(
    remote: Remote, partial: _Partial, wanted: Wanted, on_progress: OnProgress
) -> tuple[str, int]:
    pauses = iter(RETRY_PAUSES)
    while True:
        before = partial.size()
        try:
            return _attempt(remote, partial, wanted, on_progress)
        except _DroppedError as dropped:
            if partial.size() > before:
                pauses = iter(RETRY_PAUSES)
            pause = next(pauses, None)
            if pause is None:
                raise RegistryError(f"{wanted.label}: {dropped}.", _NETWORK_CURE) from dropped
            time.sleep(pause)


def _attempt(
    remote: Remote, partial: _Partial, wanted: Wanted, on_progress: OnProgress
) -> tuple[str, int]:
    """Read the rest of a file; return the digest and the size of all of it."""
    offset = _trusted_size(partial, wanted)
    if wanted.size is not None and offset >= wanted.size:
        return _hash_start(partial).hexdigest(), offset
    try:
        return _read_rest(remote, partial, offset, wanted, on_progress)
    except _NothingLeftError as answer:
        if str(answer) == f"bytes */{offset}":
            return _hash_start(partial).hexdigest(), offset
        partial.discard()
        raise _DroppedError("the file at the source has changed") from answer


def _read_rest(
    remote: Remote, partial: _Partial, offset: int, wanted: Wanted, on_progress: OnProgress
) -> tuple[str, int]:
    with _open(remote, _range_headers(partial, offset)) as response:
        offset = _align(partial, offset, response)
        total = _total_size(response, offset)
        _refuse_wrong_file(response, total, wanted)
        require_space(partial.path.parent, (total or offset) - offset)
        hasher = _hash_start(partial)
        with partial.path.open("ab") as sink:
            for chunk in _chunks(response):
                sink.write(chunk)
                hasher.update(chunk)
                offset += len(chunk)
                on_progress(Progress(wanted.label, offset, total))
    if total is not None and offset != total:
        raise _DroppedError(f"the connection ended at {offset:,} of {total:,} bytes")
    return hasher.hexdigest(), offset


def _trusted_size(partial: _Partial, wanted: Wanted) -> int:
    """Return how many bytes may be kept: all when a digest or an ETag will vouch for them."""
    if wanted.sha256 is None and partial.etag() is None:
        partial.discard()
    return partial.size()


def _hash_start(partial: _Partial) -> hashlib._Hash:
    hasher = hashlib.sha256()
    if partial.path.exists():
        with partial.path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                hasher.update(chunk)
    return hasher


def _range_headers(partial: _Partial, offset: int) -> dict[str, str]:
    if offset == 0:
        return {}
    etag = partial.etag()
    return {"Range": f"bytes={offset}-"} | ({"If-Range": etag} if etag else {})


def _align(partial: _Partial, offset: int, response: http.client.HTTPResponse) -> int:
    """Make the partial end where the response begins, and return that place."""
    if response.status != http.client.PARTIAL_CONTENT:
        partial.restart(response.headers.get("ETag"))
        return 0
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if start is None or int(start[1]) != offset:
        partial.discard()
        raise _DroppedError(f"the server did not continue at byte {offset:,}")
    return offset


def _total_size(response: http.client.HTTPResponse, offset: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return offset + int(length) if length.isdecimal() else None


def _refuse_wrong_file(
    response: http.client.HTTPResponse, total: int | None, wanted: Wanted
) -> None:
    """Refuse before a gigabyte is read what cannot be the wanted file."""
    if response.headers.get_content_type() == "text/html":
        raise RegistryError(
            f"{wanted.label}: expected a file, found a web page at {_shown(response.url)}.",
            "Check that the network needs no login page, and the source in models.toml.",
        )
    if total is not None and wanted.size is not None and total != wanted.size:
        raise RegistryError(
            f"{wanted.label}: expected {wanted.size:,} bytes, the source has {total:,}.",
            wanted.cure,
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects without taking a token to another origin or leaving https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" and new.scheme != old.scheme:
            raise RegistryError(
                f"{_shown(req.full_url)} redirects to {new.scheme}, which is not safe.",
                "Correct the source in models.toml, or HF_ENDPOINT or PIP_INDEX_URL.",
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        if request and token and (old.scheme, old.netloc) == (new.scheme, new.netloc):
            request.add_unredirected_header("Authorization", token)
        return request


def _open(remote: Remote, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    if not re.match(r"https?://[^/]", remote.url):
        raise RegistryError(
            f"Expected an http or https address, found {_shown(remote.url)}.",
            "Correct HF_ENDPOINT, PIP_INDEX_URL or the source in models.toml.",
        )
    headers = {"User-Agent": "alignpro-lite", **headers}
    try:
        request = urllib.request.Request(remote.url, headers=headers)
        if remote.authorization:
            request.add_unredirected_header("Authorization", remote.authorization)
        opener = urllib.request.build_opener(_Redirects)
        response: http.client.HTTPResponse = opener.open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        raise _status_error(remote.url, error) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _connection_error(remote.url, error) from error
    return response


def _chunks(response: http.client.HTTPResponse, limit: int | None = None) -> Iterator[bytes]:
    """Yield the body piece by piece, at most about `limit` bytes."""
    done = 0
    while limit is None or done < limit:
        try:
            chunk = response.read1(CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _DroppedError(f"the connection broke ({error})") from error
        if not chunk:
            return
        done += len(chunk)
        yield chunk


def _status_error(url: str, error: urllib.error.HTTPError) -> Exception:
    error.close()
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        return _NothingLeftError(error.headers.get("Content-Range", ""))
    problem = f"{_shown(url)} answered {error.code} {error.reason}"
    if error.code in _PASSING:
        return _DroppedError(problem)
    return RegistryError(f"{problem}.", _STATUS_CURES.get(error.code, "Check the source."))


def _connection_error(url: str, error: Exception) -> Exception:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    problem = f"{_shown(url)} cannot be reached ({reason})"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return RegistryError(
            f"{problem}.", "Set SSL_CERT_FILE to the certificates that your network needs."
        )
    return _DroppedError(problem)


def _shown(url: str) -> str:
    """Return a URL without what may be secret: user, password, signature."""
    return re.sub(r"//[^/@]*@", "//", url.partition("?")[0])
