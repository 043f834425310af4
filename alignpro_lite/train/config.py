"""Reading a training configuration: TOML in, a checked model out, before anything loads."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from alignpro_lite.errors import InputError


class Section(BaseModel):
    """A table of a configuration: immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


def read_config(path: Path, kind: type[S]) -> S:
    """Read a configuration.

    Args:
        path: A TOML file.
        kind: What it has to hold.

    Raises:
        InputError: The file is unreadable, or a value is not allowed: names the key, the value
            and what is allowed.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).", "Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}.", "Correct that line.") from error
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise _located(path, error) from error


def _located(path: Path, error: ValidationError) -> InputError:
    """The first complaint in one sentence: key, value, what is allowed."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "the file"
    others = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return InputError(f"{path} lacks the key {key}{others}.", f"Add {key} = ...")
    if first["type"] == "extra_forbidden":
        return InputError(f"{path} has an unknown key {key}{others}.", "Remove or correct it.")
    return InputError(
        f"{path}: {key} = {first['input']!r:.80} is not allowed{others}.",
        f"{first['msg'].removeprefix('Value error, ')}.",
    )
