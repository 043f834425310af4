"""Files that are never half written: hashing, atomic replacement, locks, disk errors."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from alignpro_lite.errors import DiskSpaceError, RegistryError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

CHUNK_BYTES = 1 << 20
LOCK_POLL_SECONDS = 0.2
ASSEMBLING, DOOMED = ".assembling", ".deleted"

_MOVE_CURE = (
    "Check its permissions, or choose another folder; --cache DIR or ALIGNPRO_LITE_CACHE moves the "
    "cache."
)
_SPACE_CURE = "Free some space, or choose another disk; --cache DIR moves the cache."
_DISK_CURES = {
    errno.ENOSPC: _SPACE_CURE,
    errno.EDQUOT: _SPACE_CURE,
    errno.EROFS: _MOVE_CURE,
    errno.EACCES: _MOVE_CURE,
    errno.EPERM: _MOVE_CURE,
}


LoadStage = Literal["fetching", "assembling", "trying", "loading"]
"""What happens to a model before it is loaded and ready, in this order."""


@dataclass(frozen=True)
class Progress:
    """How far a long task is.

    Attributes:
        label: What is being done, for people.
        done: Bytes done so far.
        total: Bytes in all, None when unknown.
        stage: What is being done, for programs.
    """

    label: str
    done: int
    total: int | None
    stage: LoadStage = "fetching"


OnProgress = Callable[[Progress], None]


def no_progress(progress: Progress) -> None:
    """Report nothing."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn every OSError of the block into a RegistryError.

    Args:
        path: What the block works on, named when the error names no file itself.
    """
    try:
        yield
    except OSError as error:
        cure = _DISK_CURES.get(error.errno or 0, "Check the path and the disk, then run it again.")
        raise RegistryError(
            f"{error.filename or path}: {error.strerror or error}.", cure
        ) from error


def user_path(text: str | Path) -> Path:
    """An absolute path, with `~` and `~user` at its beginning resolved.

    Raises:
        RegistryError: There is no such home folder.
    """
    # os.path leaves alone what it cannot resolve, where pathlib raises a RuntimeError.
    path = Path(os.path.expanduser(text))  # noqa: PTH111
    if str(text).startswith("~") and path == Path(text):
        raise RegistryError(
            f"{text} begins with a home folder that is not known.", "Write the whole path."
        )
    return path.absolute()


def usual_folder(find: Callable[..., Path]) -> Path | None:
    """A folder of the platform for this package; None for a user without a home folder.

    Args:
        find: A function of platformdirs.
    """
    try:
        folder = find("alignpro-lite", appauthor=False)
    except RuntimeError:  # older versions give a relative path instead
        return None
    return folder if folder.is_absolute() else None


def require_space(folder: Path, size: int) -> None:
    """Refuse early what cannot fit.

    Raises:
        DiskSpaceError: The disk of `folder` has less than `size` bytes left.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DiskSpaceError(
            f"{size:,} bytes are needed in {folder}, and {free:,} are free.",
            _SPACE_CURE,
        )


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder; 0 if nothing is there."""
    files = [path, *path.rglob("*")] if path.exists() else []
    return sum(file.stat().st_size for file in files if file.is_file())


def sha256_of(path: Path, label: str, on_progress: OnProgress = no_progress) -> str:
    """Return the lower-case hex digest of a file."""
    hasher = hashlib.sha256()
    total = path.stat().st_size
    done = 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hasher.update(chunk)
            done += len(chunk)
            on_progress(Progress(label, done, total))
    return hasher.hexdigest()


def partial_of(path: Path) -> Path:
    """Return where a file grows until it is complete."""
    return path.with_name(path.name + ".partial")


def joining_of(path: Path) -> Path:
    """Return where a file grows that is joined from parts."""
    return path.with_name(path.name + ".joined.partial")


def parts_of(joining: Path) -> Path:
    """Return where it is kept which parts are in an unfinished file already."""
    return joining.with_name(joining.name + ".parts")


def part_of(path: Path) -> Path:
    """Return where one part of a file is until it has been joined."""
    return path.with_name(path.name + ".part.partial")


def etag_of(partial: Path) -> Path:
    """Return where the version of an unfinished download is kept."""
    return partial.with_name(partial.name + ".etag")


def leftovers_of(path: Path) -> tuple[Path, ...]:
    """Return what interrupted downloads of a file may leave beside it."""
    growing = (partial_of(path), joining_of(path), part_of(path), partial_of(part_of(path)))
    return (*growing, *map(etag_of, growing), parts_of(joining_of(path)))


def begun_file(name: str) -> str:
    """Return the name of the file that an unfinished download becomes; any other name as it is."""
    return name.removesuffix(".etag").removesuffix(".partial")


def discard(partial: Path) -> None:
    """Delete an unfinished download, if there is one."""
    partial.unlink(missing_ok=True)
    etag_of(partial).unlink(missing_ok=True)


def hidden_beside(folder: Path, ending: str) -> Path:
    """Return where a folder is while it is made or deleted; `ending` is one of the two."""
    return folder.with_name(f".{folder.name}{ending}")


def remove_tree(path: Path) -> None:
    """Delete a folder, a file or a link (not what it leads to), if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def commit(partial: Path, path: Path) -> None:
    """Give a finished file its name, so that it appears complete or not at all."""
    with partial.open("rb+") as stream:
        os.fsync(stream.fileno())
    partial.replace(path)
    if sys.platform != "win32":
        # The new name is durable only when the folder is.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Replace a small text file atomically."""
    partial = partial_of(path)
    partial.write_text(text, encoding="utf-8")
    commit(partial, path)


@contextmanager
def locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock between processes, waiting for it.

    Args:
        path: The lock file, made when missing and removed in the end.
        on_wait: Called once when another process holds the lock; what it raises ends the waiting.
    """
    has_waited = False
    while True:
        with try_locked(path) as is_held:
            if is_held:
                yield
                return
        if not has_waited:
            on_wait()
            has_waited = True
        time.sleep(LOCK_POLL_SECONDS)


@contextmanager
def try_locked(path: Path) -> Iterator[bool]:
    """Hold a lock between processes, or learn that another one holds it.

    The operating system's own file lock is used because it ends with its process, even a killed
    one: nobody ever has to remove a stale lock.

    Args:
        path: The lock file, made when missing and removed in the end.

    Yields:
        Whether the lock is held.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as stream:
        # A file that its holder has just removed locks nothing.
        is_held = _try_lock(stream) and _is_at(stream, path)
        try:
            yield is_held
        finally:
            if is_held and sys.platform != "win32":
                path.unlink(missing_ok=True)  # while the lock is held
    if is_held and sys.platform == "win32":
        with suppress(PermissionError):  # another process has opened it meanwhile
            path.unlink()


def _is_at(stream: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try_lock(stream: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            stream.seek(0)
            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True
