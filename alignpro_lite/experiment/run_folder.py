"""The folder of a run: it belongs to one configuration, from the start to every resumption."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignpro_lite.errors import InputError
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.record import Record, plain
from alignpro_lite.registry.storage import write_text

CONFIG = "config.json"


@dataclass(frozen=True)
class Places:
    """Where a run finds things and puts them.

    Attributes:
        data: What relative paths of the configuration start from.
        run: The folder of the run.
        store: The models that have a name, and where they are.
    """

    data: Path
    run: Path
    store: ModelStore


def claim(run: Path, config: Record) -> None:
    """Write the resolved configuration, or check that the run was started with the same one.

    Raises:
        InputError: It was started with another, or its record cannot be read.
    """
    run.mkdir(parents=True, exist_ok=True)
    file = run / CONFIG
    own = plain(config)
    if not file.exists():
        write_text(file, json.dumps(own, indent=2) + "\n")
        return
    try:
        started = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{file} cannot be read ({error}).", "Restore it, or choose another --output."
        ) from error
    for key, was, now in _differences("", started, own):
        raise InputError(
            f"The run in {run} was started with {key} = {was!r:.80}, found {now!r:.80}.",
            "Set it back to continue that run, or choose another --output.",
        )


def _differences(prefix: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            difference
            for key in dict.fromkeys([*old, *new])
            for difference in _differences(
                f"{prefix}.{key}".lstrip("."), old.get(key), new.get(key)
            )
        ]
    return [] if old == new else [(prefix, old, new)]
