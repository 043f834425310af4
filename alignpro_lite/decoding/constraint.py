"""What an answer must be: JSON that is valid under a schema, or a text of a grammar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec


# Structs, not dataclasses: a request travels to a process of its own, and is read there by its
# types, of which dataclasses that may stand in one place cannot be told apart.
class JsonSchema(msgspec.Struct, frozen=True, tag=True):
    """An answer is JSON that is valid under a schema.

    Attributes:
        schema: A JSON Schema, its keywords in the sense of draft 2020-12. What it refers to with
            `$ref` must be in it.
    """

    schema: Mapping[str, Any]


class Gbnf(msgspec.Struct, frozen=True, tag=True):
    """An answer is a text of a grammar.

    Attributes:
        text: The grammar in GBNF, llama.cpp's form; an answer is what `root` stands for.
    """

    text: str


Constraint: TypeAlias = JsonSchema | Gbnf

ANY_JSON_OBJECT = JsonSchema({"type": "object"})
"""An answer is a JSON object, whatever is in it."""
