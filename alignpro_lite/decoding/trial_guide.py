"""Tries a constraint on a vocabulary of bytes, in the child process that `checking.py` asks."""

from __future__ import annotations

import json

from alignpro_lite.decoding.constraint import Gbnf, JsonSchema
from alignpro_lite.decoding.grammar import answer_grammar
from alignpro_lite.decoding.guide import GuideVocabulary
from alignpro_lite.decoding.json_schema import require_keepable_schema
from alignpro_lite.errors import AlignProError

_BYTES = [bytes([byte]) for byte in range(256)]
_STOP = len(_BYTES)


def answer(request: list[str]) -> list[str] | None:
    """What is wrong with a constraint and what can be done; None if nothing is.

    Args:
        request: `schema` or `grammar`, and its text.
    """
    kind, text = request
    try:
        if kind == "schema":
            schema = json.loads(text)
            require_keepable_schema(schema)
            grammar = answer_grammar(JsonSchema(schema))
        else:
            grammar = answer_grammar(Gbnf(text))
        vocabulary = GuideVocabulary([*_BYTES, b""], [_STOP], lambda text: [*text.encode()])
        vocabulary.guide(grammar).allowed()
    except AlignProError as error:
        return [error.problem, error.cure]
    return None
