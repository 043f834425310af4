"""Reading a configuration: TOML in, a checked record out, before anything loads."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from alignpro_lite.errors import InputError
from alignpro_lite.registry.record import Origin, Record, parse, read_toml

ConfigT = TypeVar("ConfigT", bound=Record)


def read_config(path: Path, kind: type[ConfigT]) -> ConfigT:
    """Read a configuration.

    Args:
        path: A TOML file.
        kind: What it has to hold.

    Raises:
        InputError: The file is unreadable, or a value is not allowed: names the key, the value
            and what is allowed.
    """
    origin = Origin(path, InputError)
    return parse(kind, read_toml(origin), origin)
