"""Reading a training configuration: TOML in, a checked model out, before anything loads."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from alignpro_lite.errors import InputError


class Section(BaseModel):
    """A table of a configuration: immutable, without unknown keys, every number finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
        raise _located(path, raw, error) from error


def _located(path: Path, raw: dict[str, Any], error: ValidationError) -> InputError:
    """The first complaint in one sentence: key, value, what is allowed."""
    complaints = error.errors(include_url=False)
    keys = [_key(raw, complaint) for complaint in complaints]
    key, first = keys[0], complaints[0]
    # A table also complains when what it holds is wrong.
    more = {other for other in keys if not (_inside(other, key) or _inside(key, other))}
    others = f" ({len(more)} more)" if more else ""
    if first["type"] == "missing":
        return InputError(f"{path} lacks the key {key}{others}.", f"Add {key} = ...")
    if first["type"] == "extra_forbidden":
        return InputError(
            f"{path} has an unknown key {key} = {first['input']!r:.80}{others}.",
            "Remove or correct it; docs/configuration-keys.md lists every key.",
        )
    # A value that may be of several kinds has a complaint for each of them.
    allowed = dict.fromkeys(
        one["msg"].removeprefix("Value error, ")
        for one, about in zip(complaints, keys, strict=True)
        if _inside(about, key)
    )
    return InputError(
        f"{path}: {key} = {first['input']!r:.80} is not allowed{others}.",
        f"{', or '.join(allowed)}.",
    )


def _inside(key: str, table: str) -> bool:
    return f"{key}.".startswith(f"{table}.")


def _key(raw: Any, complaint: ErrorDetails) -> str:
    """The key as the file has it: pydantic's also names kinds of values, which are no keys."""
    parts = []
    for part in complaint["loc"]:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            continue
        parts.append(str(part))
    if complaint["type"] == "missing":
        parts.append(str(complaint["loc"][-1]))
    return ".".join(parts) or "the file"
