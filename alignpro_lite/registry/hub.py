"""The model hub: where a file of a repository is, and which files a repository has."""

from __future__ import annotations

import os
import re
from urllib.parse import quote, urlsplit

import msgspec

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry.download import read_page
from alignpro_lite.registry.http import Remote, read_key

ENDPOINT_VARIABLE = "HF_ENDPOINT"
TOKEN_VARIABLE = "HF_TOKEN"
DEFAULT_ENDPOINT = "https://huggingface.co"

_NEXT = re.compile(r'<([^<>]+)>;\s*rel="next"')
_MOST_PAGES = 20


class LargeFile(msgspec.Struct):
    """What the hub says of a file that it keeps by digest."""

    oid: str


class HubFile(msgspec.Struct):
    """A file as the hub lists it.

    Attributes:
        path: Inside the repository.
        type: `file` or `directory`.
        size: Bytes.
        lfs: Of a large file; None for a small one.
    """

    path: str
    type: str = "file"
    size: int | None = None
    lfs: LargeFile | None = None

    @property
    def sha256(self) -> str | None:
        """The digest of a large file; the hub tells none of a small one."""
        oid = self.lfs.oid.removeprefix("sha256:").lower() if self.lfs else ""
        return oid if re.fullmatch("[0-9a-f]{64}", oid) else None


def hub_file(repository: str, revision: str, path: str) -> Remote:
    """Where a file of a repository can be downloaded."""
    return _at(f"{_endpoint()}/{repository}/resolve/{revision}/{quote(path)}")


def list_repository(repository: str, revision: str) -> tuple[HubFile, ...]:
    """All files of a repository.

    Raises:
        RegistryError: The hub cannot be reached or does not know the repository.
    """
    url = f"{_endpoint()}/api/models/{repository}/tree/{quote(revision, safe='')}?recursive=true"
    found: list[HubFile] = []
    for _ in range(_MOST_PAGES):
        page = read_page(_at(url), "application/json", f"the files of hf:{repository}@{revision}")
        found += [file for file in _parse(page.body, repository) if file.type == "file"]
        following = _NEXT.search(page.links)
        if following is None:
            break
        if urlsplit(following[1])[:2] != urlsplit(url)[:2]:  # the key stays with its host
            break
        url = following[1]
    return tuple(found)


def _parse(body: bytes, repository: str) -> list[HubFile]:
    try:
        return msgspec.json.decode(body, type=list[HubFile])
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise RegistryError(
            f"The hub answered with no list of the files of {repository}.",
            f"Check {ENDPOINT_VARIABLE}, which should point to a model hub.",
        ) from error


def _endpoint() -> str:
    return (os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT).rstrip("/")


def _at(url: str) -> Remote:
    return Remote.at(url, read_key(TOKEN_VARIABLE))
