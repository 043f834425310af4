"""The grammar of a whole reply: thoughts as the model writes them, then the answer.

In llguidance's variant of Lark, whose `%json` is a JSON Schema.
"""

from __future__ import annotations

import json

from alignpro_lite.decoding.constraint import Constraint, JsonSchema
from alignpro_lite.decoding.gbnf import lark_rules
from alignpro_lite.decoding.json_schema import schema_text
from alignpro_lite.decoding.reasoning import ReasoningFormat

_OPTIONS = {
    "x-guidance": {
        # A small model may write white space for ever where it may write any.
        "whitespace_pattern": r"( |\n[ \t]{0,20})?",
        "lenient": False,
        "coerce_one_of": False,
    }
}
_SPACE = r"space: /[ \t\r\n]/{0,4}"
"""Between parts, and bounded for the same reason."""


def answer_grammar(constraint: Constraint) -> str:
    """The grammar of an answer alone.

    Raises:
        InputError: The constraint is no JSON, or no GBNF.
    """
    return "\n".join(["%llguidance {}", "start: answer", _answer_rules(constraint)])


def reply_grammar(constraint: Constraint, known: ReasoningFormat, *, inside: bool) -> str:
    """The grammar of a reply that may begin with thoughts.

    Args:
        constraint: What the answer must be.
        known: How the model writes thoughts.
        inside: Whether the prompt itself opened a thought, so that only its end follows.

    Raises:
        InputError: See `answer_grammar`.
    """
    header = "header " if known.header_end else ""
    separators = " | ".join(map(_literal, known.separators))
    between = f"space (({separators}) space)*" if separators else "space"
    rules = [
        "%llguidance {}",
        f"start: {'thought between' if inside else 'space'} (opening thought between)* said",
        f"opening: ({' | '.join(map(_literal, known.openings))}) {header}",
        f"thought[lazy]: {_until(known.closings)}",
        f"between: {between}",
        _SPACE,
        _answer_rules(constraint),
    ]
    if known.header_end:
        rules.append(f"header[lazy]: {_until((known.header_end,))}")
    if known.answer is None:
        rules.append("said: answer")
    else:
        begins, ends = map(_literal, known.answer)
        rules.append(f"said: answer | {begins} {header}space answer (space {ends})?")
    return "\n".join(rules)


def _answer_rules(constraint: Constraint) -> str:
    if isinstance(constraint, JsonSchema):
        schema = json.loads(schema_text(constraint.schema))
        return f"answer: %json {json.dumps(schema | _OPTIONS)}"
    return lark_rules(constraint.text, "answer")


def _literal(text: str) -> str:
    """A terminal that is this text."""
    return f"/{_pattern(text)}/"


def _until(ends: tuple[str, ...]) -> str:
    """A terminal, to be matched lazily, that goes up to the first of some texts and holds it."""
    return f"/(?s:.*)({'|'.join(map(_pattern, ends))})/"


def _pattern(text: str) -> str:
    return "".join(f"\\x{{{ord(character):x}}}" for character in text)
