"""The name of a prompter that is no bundle: `self`, the target's own weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from alignpro_lite.errors import InputError
from alignpro_lite.registry.entries import SELF, RewriteMode

_FORM = re.compile(rf"{SELF}(?::(?P<mode>[^+]*))?(?:\+(?P<adapter>.*))?", re.DOTALL)
_MODES: dict[str, RewriteMode] = {"augment": "augment", "rewrite": "rewrite"}


@dataclass(frozen=True)
class SelfName:
    """What `self`, `self:rewrite` or `self+adapter.gguf` asks for.

    Attributes:
        mode: How its output becomes x'; None for the usual way.
        adapter: A GGUF LoRA that makes the target's weights ρ_θ; None leaves them as they are.
    """

    mode: RewriteMode | None
    adapter: Path | None


def self_name(prompter: str | Path) -> SelfName | None:
    """Read the name of a prompter; None if it names a bundle.

    Raises:
        InputError: It begins as `self` does, and goes on in another way.
    """
    found = _FORM.fullmatch(str(prompter))
    if found is None:
        return None
    mode, adapter = found["mode"], found["adapter"]
    if (mode is not None and mode not in _MODES) or adapter == "":
        raise InputError(
            f"A prompter of the target's own weights is written {SELF}, {SELF}:rewrite or "
            f"{SELF}+adapter.gguf, found {str(prompter)!r:.80}.",
            f"Correct it; a bundle in a folder of that name is ./{SELF}.",
        )
    return SelfName(_MODES[mode] if mode else None, Path(adapter).expanduser() if adapter else None)
