"""Whether a model of the cache is still what was pulled: hashed again only if a file changed."""

from __future__ import annotations

from alignpro_lite.errors import ModelFileError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import Entry
from alignpro_lite.registry.stamps import Stamps, identity_of
from alignpro_lite.registry.storage import disk_errors, sha256_of


def require_intact(cache: Cache, entry: Entry) -> None:
    """Compare the files of an installed model with the digests that are known of them.

    A file with the size, times and inode that it had at the last comparison is not read.

    Raises:
        ModelFileError: A file was overwritten or damaged.
        RegistryError: A file cannot be read.
    """
    stamps = Stamps(cache)
    with disk_errors(cache.path(entry)):
        place = cache.place(entry) or cache.path(entry)
    for file in entry.files:
        path = entry.file_in(place, file)
        expected = cache.digest(entry, file)
        with disk_errors(path):
            identity = identity_of(path)
            if expected is None or stamps.has(expected, identity):
                continue
            found = sha256_of(path, entry.label(file))
            if found != expected:
                raise ModelFileError(
                    f"{path} is not what was pulled: sha256 {expected} expected, {found} found.",
                    _cure(entry, place == cache.path(entry)),
                )
            stamps.add(expected, identity)


def _cure(entry: Entry, is_in_cache: bool) -> str:
    if entry.own_file is not None:
        return "Restore your own file, or correct its sha256 in your models.toml."
    if is_in_cache:
        return f"Run `alignpro-lite models rm {entry.key} && {entry.install_command}`."
    return f"Run `{entry.install_command}`, which leaves the hub's own cache and fetches a copy."
