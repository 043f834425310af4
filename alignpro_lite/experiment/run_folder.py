"""The folder of a run: it belongs to one configuration, from the start to every resumption."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignpro_lite.errors import InputError
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.record import Origin, Record, parse, plain, read_json
from alignpro_lite.registry.storage import try_locked, write_text

CONFIG = "config.json"
_OWN = re.compile(r"\..*|.*\.(lock|partial)")
"""What may lie in a folder before a run is recorded in it."""


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
        InputError: It was started with another, its record cannot be read, or the folder holds
            something else: nothing of it is overwritten.
    """
    run.mkdir(parents=True, exist_ok=True)
    file = run / CONFIG
    own = plain(config)
    if not file.exists():
        _refuse_foreign(run)
        write_text(file, json.dumps(own, indent=2) + "\n")
        return
    origin = Origin(file, InputError, "Restore it, or choose another --output.")
    # Keys that are younger than the run have their defaults, with which it was started.
    started = plain(parse(type(config), read_json(origin, "run"), origin))
    for key, was, now in _differences("", started, own):
        raise InputError(
            f"The run in {run} was started with {key} = {was!r:.80}, found {now!r:.80}.",
            "Set it back to continue that run, or choose another --output.",
        )


@contextmanager
def sole_run(run: Path) -> Iterator[None]:
    """Keep everyone else from training into a folder.

    Raises:
        InputError: Another process does so.
    """
    with try_locked(run / ".lock") as is_held:
        if not is_held:
            raise InputError(
                f"Another process is training into {run}.",
                "Wait until it is done, or choose another --output.",
            )
        yield


def _refuse_foreign(run: Path) -> None:
    names = sorted(path.name for path in run.iterdir() if not _OWN.fullmatch(path.name))
    if names:
        raise InputError(
            f"Expected a new folder or that of a run, found {names[0]} in {run}.",
            "Choose another --output.",
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
