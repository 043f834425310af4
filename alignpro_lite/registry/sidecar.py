"""The sidecar of a bundle: the file that describes it, and the contract between export and runtime.

Unknown keys and versions are refused, and every file's sha256 is checked before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from alignpro_lite.errors import BundleError
from alignpro_lite.registry.digests import check_files
from alignpro_lite.registry.record import Origin, parse_written, read_json, write_record
from alignpro_lite.registry.storage import disk_errors


class Described(Protocol):
    """What every sidecar says."""

    @property
    def files(self) -> Mapping[str, str]:
        """The sha256 of every other file of the bundle, by relative name."""

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the files that are read."""


SidecarT = TypeVar("SidecarT", bound=Described)


@dataclass(frozen=True)
class SidecarFile(Generic[SidecarT]):
    """How the sidecar of one kind of bundle is stored.

    Attributes:
        kind: The record that it holds, whose first key is `format`.
        name: Of the file in the bundle.
        what: The kind of bundle, for messages.
        version: The `format` that is understood.
        cure: How such a bundle is made again, a sentence.
    """

    kind: type[SidecarT]
    name: str
    what: str
    version: int
    cure: str

    def open(self, bundle: Path) -> SidecarT:
        """Read the description of a bundle and check every file of it.

        Raises:
            BundleError: Something is missing, altered or of an unknown format.
            RegistryError: A file cannot be read.
        """
        sidecar = self.read(bundle)
        with disk_errors(bundle):
            checks = check_files(bundle, sidecar.files)
        for check in checks:
            if check.state == "missing":
                raise BundleError(f"{check.path} of the bundle is missing.", self.cure)
            if check.state == "altered":
                raise BundleError(
                    f"{check.path} was altered: sha256 {check.expected} expected, {check.found} "
                    "found.",
                    self.cure,
                )
        return sidecar

    def read(self, bundle: Path) -> SidecarT:
        """Read the description of a bundle without touching its other files.

        Raises:
            BundleError: It is missing or not understood, or names a file that it may not use.
        """
        origin = Origin(bundle / self.name, BundleError, self.cure)
        raw = read_json(origin, self.what)
        if raw.get("format") != self.version:
            raise BundleError(
                f"{origin.file} must have format {self.version}, found {raw.get('format')!r}.",
                f"{self.cure[:-1]}, or upgrade alignpro-lite if it is newer.",
            )
        sidecar = parse_written(self.kind, raw, origin)
        for name in sidecar.files:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise origin.refusal(f" names a file outside the bundle: {name}.", self.cure)
        for name in sidecar.used:
            if name not in sidecar.files:
                raise origin.refusal(f" has no digest of {name}.", self.cure)
        return sidecar

    def write(self, bundle: Path, sidecar: SidecarT) -> None:
        """Write the description into a bundle under construction."""
        write_record(bundle / self.name, sidecar)
