"""For which targets a prompter was trained or measured."""

from __future__ import annotations

from alignpro_lite.registry.entries import Sha256
from alignpro_lite.registry.record import NonEmpty, Record


class KnownTarget(Record):
    """A target, as a bundle remembers it and a caller finds it.

    Attributes:
        name: What people call it; of an endpoint, the name of its model.
        sha256: Of its GGUF file; None for an endpoint, whose weights nobody can check.
    """

    name: NonEmpty
    sha256: Sha256 | None

    def is_same(self, other: KnownTarget) -> bool:
        """Whether both are one model: by digest, or by name where neither has one."""
        if self.sha256 is None and other.sha256 is None:
            return self.name == other.name
        return self.sha256 == other.sha256


class TargetClaim(Record):
    """For which targets a prompter is meant; without any, for none in particular.

    Attributes:
        known: Those that it was trained for or measured with.
        any_by: The evaluation that says that it helps targets it was not made for; None if there
            is none.
    """

    known: tuple[KnownTarget, ...] = ()
    any_by: NonEmpty | None = None

    def covers(self, target: KnownTarget) -> bool:
        """Whether a prompter is meant for a target."""
        return self.any_by is not None or any(map(target.is_same, self.known))


NO_TARGET = TargetClaim()
"""That of a base model, which was made for no target."""
