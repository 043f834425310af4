"""What an answer must be: JSON that is valid under a schema, or a text of a grammar."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True)
class JsonSchema:
    """An answer is JSON that is valid under a schema.

    Attributes:
        schema: A JSON Schema, its keywords in the sense of draft 2020-12. What it refers to with
            `$ref` must be in it.
    """

    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Gbnf:
    """An answer is a text of a grammar.

    Attributes:
        text: The grammar in GBNF, llama.cpp's form; an answer is what `root` stands for.
    """

    text: str


Constraint: TypeAlias = JsonSchema | Gbnf

ANY_JSON_OBJECT = JsonSchema({"type": "object"})
"""An answer is a JSON object, whatever is in it."""
