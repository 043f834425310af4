"""Constraints on answers: what is kept is always kept, and the rest is refused by name."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.decoding.constraint import ANY_JSON_OBJECT, Gbnf, JsonSchema
from alignpro_lite.decoding.grammar import answer_grammar, reply_grammar
from alignpro_lite.decoding.guide import GuideVocabulary
from alignpro_lite.decoding.reasoning import FORMATS
from alignpro_lite.decoding.trial_guide import answer as refusal
from alignpro_lite.errors import InputError
from tests.support.constrained import STOP, VOCABULARY, require_valid, walk
from tests.support.schemas import KEPT, REFUSED

ANSWERS = 6


def schemas(table):
    return [
        pytest.param(keyword, schema, id=f"{keyword}-{number}")
        for keyword, group in table.items()
        for number, schema in enumerate(group)
    ]


def test_there_are_200_schemas():
    assert len(schemas(KEPT)) + len(schemas(REFUSED)) >= 200


@pytest.mark.parametrize(("keyword", "schema"), schemas(KEPT))
def test_every_answer_is_valid_under_its_schema(keyword, schema):
    assert refusal(["schema", json.dumps(schema)]) is None
    grammar = answer_grammar(JsonSchema(schema))
    found = [text for seed in range(ANSWERS) if (text := walk(grammar, seed)) is not None]
    assert found or keyword == "pattern"
    for text in found:
        require_valid(schema, text)


@pytest.mark.parametrize(("keyword", "schema"), schemas(REFUSED))
def test_what_cannot_be_kept_is_refused_by_name(keyword, schema):
    """Holds down: llguidance takes 0 for a number above 0 if a bound lies below 1."""
    found = refusal(["schema", json.dumps(schema)])
    assert found is not None
    assert keyword in found[0]
    assert "start: answer" not in found[0]


_THEMSELVES = {"$ref": "#"}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"pattern": "^[[a]]$"}, "has [ inside [...]"),
        ({"pattern": "^[[:alpha:]]$"}, "has [ inside [...]"),
        ({"pattern": "^[a[^b]]$"}, "has [ inside [...]"),
        ({"pattern": "^[]a[b]]$"}, "has [ inside [...]"),
        ({"pattern": "^[+--]$"}, "has -- inside [...]"),
        ({"pattern": "^[a~~b]$"}, "has ~~ inside [...]"),
        ({"patternProperties": {"^[a-z&&b]$": {}}}, "has && inside [...]"),
        ({"items": [{"type": "null"}], "prefixItems": [{"type": "string"}]}, "prefixItems"),
        ({"type": "object", "required": ["a"], "additionalProperties": _THEMSELVES}, "$ref"),
        ({"type": "object", "required": ["a"], "patternProperties": {"^a": _THEMSELVES}}, "$ref"),
        ({"type": "object", "minProperties": 1, "additionalProperties": _THEMSELVES}, "$ref"),
        ({"type": "array", "minItems": 1, "items": [_THEMSELVES]}, "$ref"),
        ({"type": []}, "anyOf is empty"),
    ],
)
def test_what_llguidance_would_keep_otherwise_is_refused(schema, said):
    """A set in a set was kept as one, and an object that always holds itself never ended."""
    found = refusal(["schema", json.dumps(schema)])
    assert found is not None
    assert said in found[0]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": r"^[\[\]&|~-]--&&$"},
        {"type": "string", "pattern": "^[]a]&&[^]]$"},
        {"type": "object", "required": ["a"], "patternProperties": {"^b": _THEMSELVES}},
        {"type": "object", "minProperties": 1, "required": ["a"], "properties": {"b": _THEMSELVES}},
        {"type": "array", "items": [{"type": "null"}], "additionalItems": _THEMSELVES},
    ],
)
def test_what_only_looks_like_that_is_kept(schema):
    assert refusal(["schema", json.dumps(schema)]) is None


SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.text('abé"\\', max_size=3)
NAMES = st.sampled_from(["a", "b", "é", 'q"'])
LEAVES = st.one_of(
    st.builds(lambda kind: {"type": kind}, st.sampled_from(["string", "null", "boolean"])),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-50, 50),
        st.integers(0, 60),
    ),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 3),
        st.integers(0, 3),
    ),
    st.builds(lambda values: {"enum": values}, st.lists(SCALARS, min_size=1, max_size=3)),
)


def larger(inner):
    properties = st.dictionaries(NAMES, inner, max_size=3)
    return st.one_of(
        st.builds(
            lambda items, most: {"type": "array", "items": items, "maxItems": most},
            inner,
            st.integers(0, 3),
        ),
        st.builds(
            lambda named: {
                "type": "object",
                "properties": named,
                "required": [*named],
                "additionalProperties": False,
            },
            properties,
        ),
        st.builds(lambda named: {"type": "object", "properties": named}, properties),
        st.builds(lambda parts: {"anyOf": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: {"allOf": parts}, st.lists(inner, min_size=1, max_size=2)),
    )


@settings(max_examples=60, deadline=None)
@given(schema=st.recursive(LEAVES, larger, max_leaves=6), seed=st.integers(0, 9))
def test_a_schema_of_any_shape_is_kept_or_refused(schema, seed):
    if refusal(["schema", json.dumps(schema)]) is None:
        text = walk(answer_grammar(JsonSchema(schema)), seed)
        if text is not None:
            require_valid(schema, text)


def allows(grammar: str, text: str) -> bool:
    """Whether a whole text is allowed."""
    guide = VOCABULARY.guide(grammar)
    for byte in text.encode():
        if not guide.allowed()[byte]:
            return False
        guide.accept(byte)
    return bool(guide.allowed()[STOP])


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.openings[0])
def test_thoughts_stand_before_the_answer(known):
    """Every family of models: none, one or two thoughts, in the prompt or not, tags or none."""
    opening, closing = known.openings[0] + (known.header_end or ""), known.closings[0]
    between = (known.separators or ("\n\n",))[0]
    thought = f"Is it {{}}, or < 1?{closing}{between}"
    grammar = reply_grammar(ANY_JSON_OBJECT, known, inside=False)
    answers = ["{}"]
    if known.answer is not None:
        answers.append(f"{known.answer[0]}{known.header_end or ''}{{}}{known.answer[1]}")
    for said in answers:
        assert allows(grammar, said)
        assert allows(grammar, f"{opening}{thought}{said}")
        assert allows(grammar, f"{opening}{thought}{opening}{thought}{said}")
        inside = reply_grammar(ANY_JSON_OBJECT, known, inside=True)
        assert allows(inside, f"{thought}{said}")
        assert not allows(inside, said)
    assert not allows(grammar, f"{opening}{thought}It is {{}}.")


def test_white_space_ends():
    """A small model writes line breaks for ever where it may."""
    grammar = answer_grammar(ANY_JSON_OBJECT)
    assert allows(grammar, '{\n    "a": [\n        1,\n        2\n    ]\n}')
    assert not allows(grammar, '{\n\n\n"a": 1}')


@pytest.mark.parametrize(
    ("text", "allowed", "refused"),
    [
        ('root ::= "yes" | "no"', ["yes", "no"], ["", "y", "yesno", "Yes"]),
        ('root ::= "a" "x" | [a-z] "y"', ["ax", "ay", "by"], ["bx"]),
        ('root ::= word "b" root | "x"\nword ::= [a-z]+', ["x", "abx", "bbbbx"], ["bx", "ab"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["a", ""]),
        ('root ::= ""', [""], ["a"]),
        ("root ::= [^a-c\\n]{2,3} # no more", ["de", "d😀é"], ["d", "da", "d\nd", "dddd"]),
        ("root ::= . .", ["\n😀"], ["a"]),
        ('root ::= "\\"\\\\\\x41\\u00e9\\U0001F600\\n"', ['"\\Aé😀\n'], [""]),
        ('root ::= ("a" |\n "b")* c?\nc ::= [\\]\\-]{2}', ["", "abba]-"], ["]", "]]a"]),
        ('root ::= "a"{2} "b"{1,} "c"{0,1}', ["aab", "aabbbc"], ["ab", "aac"]),
        ("root ::= [a-]+", ["a-"], ["b"]),
    ],
)  # fmt: skip
def test_a_grammar_means_what_it_means_in_llama_cpp(text, allowed, refused):
    """Holds down: taken in one piece, `[a-z]+` swallows the `b` that the rule needs behind it."""
    grammar = answer_grammar(Gbnf(text))
    assert refusal(["grammar", text]) is None
    assert [said for said in allowed if not allows(grammar, said)] == []
    assert [said for said in refused if allows(grammar, said)] == []


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no rule root"),
        ('word ::= "a"', "no rule root"),
        ("root ::= word", "word"),
        ('root ::= "a" root', "needs itself again"),
        ('root ::= a | b\na ::= "x" b\nb ::= a "y"', "needs itself again"),
        ('root ::= "a', "line 1"),
        ('root ::= "a"\n\nroot ::= "b"', "twice (line 3)"),
        ('root ::= ("a"', "lacks a )"),
        ('root ::= "a")', "line 1"),
        ("root ::= [b-a]", "before it begins"),
        ("root ::= []", "line 1"),
        ('root ::= "a"{3,2}', "{3,2}"),
        ('root ::= "a"+*', "not GBNF"),
        ('root ::= "\\ud800"', "no character"),
        ('root ::= "\\q"', "no character"),
        ("root ::= <[12]>", "line 1"),
        ("root ::= \x00", "line 1"),
        ("root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "parentheses"),
        ('root ::= "' + "a" * 300_000 + '"', "200,000"),
    ],
)
def test_a_grammar_that_is_none_is_refused_by_its_line(text, named):
    found = refusal(["grammar", text])
    assert found is not None
    assert named in found[0]


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.sampled_from('root ::="a"[]-^(){}|*+?.\\x4\n#<>,09'), max_size=40))
def test_no_grammar_ends_the_process(text):
    """llama.cpp's own parser aborts on some of them."""
    refusal(["grammar", f"root ::= {text}"])


def test_a_guide_that_nothing_can_follow_is_an_error():
    digits = GuideVocabulary([b"1", b"2", b""], [2], lambda text: [])
    with pytest.raises(InputError, match="cannot be kept"):
        digits.guide(answer_grammar(Gbnf('root ::= "a"'))).allowed()


def test_a_token_that_is_not_allowed_is_an_error():
    guide = VOCABULARY.guide(answer_grammar(Gbnf('root ::= "ab"')))
    other = guide.copy()
    with pytest.raises(InputError, match="cannot be kept"):
        guide.accept(ord("b"))
    other.accept(ord("a"))
    assert np.flatnonzero(other.allowed()).tolist() == [ord("b")]
