"""llguidance and llama.cpp's own converter on the same JSON schemas, and what a token costs.

Each answer is drawn byte by byte from all that the grammar allows, so nothing depends on a model:

    PYTHONPATH=. python benchmarks/constraints.py --target model.gguf

Drawn under both converters by the same engine, which keeps any grammar: what differs is what the
converters make of a schema.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonschema import ValidationError
from llama_cpp.llama_grammar import json_schema_to_gbnf

from alignpro_lite.decoding.constraint import Constraint, Gbnf, JsonSchema
from alignpro_lite.decoding.grammar import answer_grammar
from alignpro_lite.decoding.guide import GuideVocabulary
from alignpro_lite.decoding.llamacpp import open_vocabulary
from alignpro_lite.decoding.trial_guide import answer as refusal
from alignpro_lite.errors import InputError
from tests.support import TINY_TARGET
from tests.support.constrained import require_valid, walk
from tests.support.schemas import KEPT, REFUSED

Schema = dict[str, Any]
SCHEMAS = [schema for table in (KEPT, REFUSED) for group in table.values() for schema in group]
WRITTEN = '{"name": "Ada Lovelace", "age": 36, "tags": ["mathematics", "poetry"]}'
TIMED: dict[str, Constraint] = {
    "schema": JsonSchema(
        {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["name", "age", "tags"],
        }
    ),
    "grammar": Gbnf(json_schema_to_gbnf('{"type": "object"}')),
}


def ours(schema: Schema) -> str:
    """The grammar that answers are held to."""
    if found := refusal(["schema", json.dumps(schema)]):
        raise InputError(*found)
    return answer_grammar(JsonSchema(schema))


def converted(schema: Schema) -> str:
    """llama.cpp's converter, as llama-cpp-python ships it."""
    try:
        return answer_grammar(Gbnf(json_schema_to_gbnf(json.dumps(schema))))
    except Exception as error:  # it has no exceptions of its own
        raise InputError(str(error), "") from error


def outcome(schema: Schema, convert: Callable[[Schema], str], answers: int) -> str:
    """What becomes of a schema: `refused`, `invalid`, `valid`, or `cut` if no answer ended."""
    try:
        grammar = convert(schema)
        texts = [walk(grammar, seed) for seed in range(answers)]
    except InputError:
        return "refused"
    ended = [text for text in texts if text is not None]
    try:
        for text in ended:
            require_valid(schema, text)
    except (ValidationError, ValueError):
        return "invalid"
    return "valid" if ended else "cut"


def mask_microseconds(target: Path) -> dict[str, float]:
    """The mean time to find the tokens that may come next, over the tokens of one answer."""
    model = open_vocabulary(target)
    pieces = [model.piece(token) for token in range(model.n_vocab)]
    vocabulary = GuideVocabulary(pieces, model.stop, model.tokenize_inside)
    tokens, found = model.tokenize(WRITTEN, special=False), {}
    for name, constraint in TIMED.items():
        guide = vocabulary.guide(answer_grammar(constraint))
        started = time.perf_counter()
        for token in tokens:
            guide.allowed()
            guide.accept(token)
        found[name] = (time.perf_counter() - started) / len(tokens) * 1e6
    return found


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=TINY_TARGET)
    parser.add_argument("--answers", type=int, default=6)
    parser.add_argument("--schemas", type=int, default=len(SCHEMAS))
    options = parser.parse_args()
    for name, convert in (("llguidance", ours), ("llama.cpp", converted)):
        found = Counter(
            outcome(schema, convert, options.answers) for schema in SCHEMAS[: options.schemas]
        )
        print(f"{name:<12}", *(f"{number} {kind}" for kind, number in sorted(found.items())))
    for name, microseconds in mask_microseconds(options.target).items():
        print(f"{name:<12} {microseconds:.0f} µs a token")


if __name__ == "__main__":
    main()
