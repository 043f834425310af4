"""Join the parts of one file: streamed, resumed at the last whole part, complete or absent."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from alignpro_lite.errors import DiskSpaceError, RegistryError
from alignpro_lite.registry.download import ExpectedFile
from alignpro_lite.registry.record import Record
from alignpro_lite.registry.sources import JoinedSource, Part
from alignpro_lite.registry.storage import (
    OnProgress,
    Progress,
    commit,
    discard,
    joining_of,
    partial_of,
    parts_of,
    require_space,
    sha256_of,
    size_of,
    write_text,
)

FetchPart = Callable[[Part, OnProgress], Iterator[bytes]]
"""Brings one part, reports its bytes, gives them piece by piece, and leaves nothing behind."""


class JoinedParts(Record):
    """Which parts are in an unfinished file.

    Attributes:
        source: The pattern that names the parts.
        sizes: The bytes of each part that is there, in order.
    """

    source: str
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Join:
    """A file that is made from its parts.

    What another source began of the file stays until a part has arrived, so that an outage of
    all sources loses nothing.

    Attributes:
        source: Its parts.
        destination: Where it appears when it is whole.
        expected: What it must turn out to be; digest and size are known.
    """

    source: JoinedSource
    destination: Path
    expected: ExpectedFile

    @property
    def total(self) -> int:
        """Bytes of the whole."""
        return self.expected.size or 0

    @property
    def label(self) -> str:
        """What is shown while it is under way."""
        return f"{self.expected.label} in {len(self.source.parts)} parts"

    def run(self, fetch: FetchPart, on_progress: OnProgress) -> None:
        """Append what is missing, part by part, then check the whole and give it its name.

        Raises:
            DiskSpaceError: The rest and the largest part do not fit.
            RegistryError: A part cannot be had, or the whole is not the expected file.
        """
        count = len(self.source.parts)
        self.destination.parent.mkdir(parents=True, exist_ok=True)
        joining = joining_of(self.destination)
        sizes = self._sizes_so_far()
        other = partial_of(self.destination)
        # Beside the growing file lies one part, of which it is appended; the other makes room.
        rest = self.total - sum(sizes) - size_of(other)
        require_space(joining.parent, max(0, rest) + -(-self.total // count))
        joining.touch()
        os.truncate(joining, sum(sizes))  # what came of the part that was under way
        with joining.open("ab") as sink:
            for number in range(len(sizes) + 1, count + 1):
                begun = sum(sizes)
                for chunk in self._part(number, fetch, begun, on_progress):
                    discard(other)  # only now: the part is here
                    sink.write(chunk)
                sink.flush()
                os.fsync(sink.fileno())
                sizes.append(sink.tell() - begun)
                record = JoinedParts(str(self.source), tuple(sizes))
                write_text(parts_of(joining), msgspec.json.encode(record).decode())
                on_progress(Progress(self.label, sum(sizes), self.total))
        self._finish(joining, on_progress)

    def _sizes_so_far(self) -> list[int]:
        """The bytes of the parts that are whole; none if they are of another source."""
        joining = joining_of(self.destination)
        try:
            record = msgspec.json.decode(parts_of(joining).read_bytes(), type=JoinedParts)
            kept = joining.stat().st_size
        except (FileNotFoundError, msgspec.DecodeError):
            return []
        is_ours = record.source == str(self.source) and min(record.sizes, default=0) >= 0
        is_here = len(record.sizes) <= len(self.source.parts) and sum(record.sizes) <= kept
        return list(record.sizes) if is_ours and is_here else []

    def _part(
        self, number: int, fetch: FetchPart, begun: int, on_progress: OnProgress
    ) -> Iterator[bytes]:
        """The bytes of one part."""

        def report(step: Progress) -> None:
            on_progress(Progress(self.label, min(begun + step.done, self.total), self.total))

        done = begun
        try:
            for chunk in fetch(self.source.parts[number - 1], report):
                done += len(chunk)
                self._refuse_excess(done)
                yield chunk
        except DiskSpaceError:
            raise
        except RegistryError as error:
            place = f"Part {number} of {len(self.source.parts)}"
            raise RegistryError(f"{place}: {error.problem}", error.cure) from error

    def _refuse_excess(self, done: int) -> None:
        """Stop before the disk is full of what cannot become the expected file."""
        if done > self.total:
            # The next pull starts anew: one of the parts that are here may be the wrong one.
            parts_of(joining_of(self.destination)).unlink(missing_ok=True)
            raise RegistryError(
                f"the parts have more than the {self.total:,} bytes of the whole.",
                self.expected.cure,
            )

    def _finish(self, joining: Path, on_progress: OnProgress) -> None:
        digest = sha256_of(joining, f"{self.expected.label}: checking", on_progress)
        try:
            self.expected.check(digest, joining.stat().st_size)
        except RegistryError as error:
            joining.unlink()
            parts_of(joining).unlink()
            raise RegistryError(
                f"{error.problem[:-1]} in its {len(self.source.parts)} parts: one of them is "
                "incomplete, another file's or in the wrong place.",
                error.cure,
            ) from error
        commit(joining, self.destination)
        parts_of(joining).unlink()
