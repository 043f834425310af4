"""The constraints of IFEval, checked by the published checkers, offline, and alike every time."""

from __future__ import annotations

import json
import socket
import sys
from importlib import import_module

import pytest

from alignpro_lite.errors import InputError, MissingDependencyError
from alignpro_lite.reward import ifeval
from alignpro_lite.reward.check import CheckScorer
from alignpro_lite.reward.exchange import Exchange, TaskReference
from alignpro_lite.reward.ifeval import ConstraintCheck, Followed, constraints_as_text

LOWER = ("change_case:english_lowercase", {})
NO_COMMA = ("punctuation:no_comma", {})
SENTENCES = ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 3})
CAPITALS = (
    *("change_case:capital_word_frequency",),
    {"capital_relation": "at least", "capital_frequency": 2},
)
REPEAT = ("combination:repeat_prompt", {"prompt_to_repeat": "Name a river."})


@pytest.fixture(scope="module")
def check():
    return ConstraintCheck()


def reference_of(*constraints):
    names, arguments = zip(*constraints, strict=True)
    return constraints_as_text({"instruction_id_list": list(names), "kwargs": list(arguments)})


@pytest.mark.parametrize(
    ("constraint", "follows", "does_not"),
    [
        (LOWER, "rivers flow to the sea and never come back", "Rivers flow to the sea."),
        (NO_COMMA, "The Elbe and the Rhine.", "The Elbe, the Rhine."),
        (SENTENCES, "Dr. Ray is in. She sees me. I leave.", "Dr. Ray is in. She sees me."),
        (CAPITALS, "The ELBE is a LONG river.", "The ELBE is a long river."),
        (REPEAT, "Name a river. The Elbe.", "The Elbe."),
        (("detectable_format:json_format", {}), '{"river": "Elbe"}', "river: Elbe"),
        (("language:response_language", {"language": "de"}), "Das ist ein Fluss.", "A river."),
        (("keywords:existence", {"keywords": ["Elbe"]}), "the elbe", "the Rhine"),
    ],
)
def test_an_answer_follows_a_constraint_or_not(check, constraint, follows, does_not):
    reference = reference_of(constraint)
    check.require(reference)
    assert check.score("Name a river.", follows, reference) == 1
    assert check.score("Name a river.", does_not, reference) == 0


def test_the_score_is_the_share_that_the_answer_follows_as_it_stands(check):
    reference = reference_of(LOWER, NO_COMMA, SENTENCES)
    found = check.followed("p", "Sure, here it is:\none and two. three and four. five.", reference)
    assert found == Followed(strict=(False, False, True), loose=(True, True, True))
    answer = "Sure, it is so. It was so. It will be."
    assert check.score("p", answer, reference) == pytest.approx(1 / 3)


@pytest.mark.parametrize("answer", ["", "  \n", "<think>", "</think>"])
def test_an_empty_answer_follows_nothing(check, answer):
    reference = reference_of(LOWER, NO_COMMA)
    none = (False, False)
    assert check.followed("p", answer, reference) == Followed(none, none)
    scorer = CheckScorer("ifeval", "followed", {"p": TaskReference("ifeval", reference)})
    exchange = Exchange("p", answer, reference=TaskReference("ifeval", reference))
    assert scorer.score([exchange]).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (reference_of(("length:haiku", {})), "'length:haiku' is unknown to IFEval"),
        (reference_of((SENTENCES[0], {})), "takes num_sentences, relation, found nothing"),
        (reference_of((SENTENCES[0], SENTENCES[1] | {"relation": None})), "found num_sentences"),
        (reference_of((LOWER[0], {"loud": 1})), "takes nothing, found loud"),
        (reference_of((SENTENCES[0], SENTENCES[1] | {"relation": "about"})), "cannot be used"),
        (reference_of(("keywords:existence", {"keywords": ["("]})), "cannot be used"),
        (reference_of((NO_COMMA[0], None)), "must hold instruction_id_list and kwargs"),
        ('{"instruction_id_list": ["a"], "kwargs": []}', "lists of equal length"),
        ('{"instruction_id_list": [], "kwargs": []}', "at least one constraint"),
        ("#### 18", "must hold instruction_id_list and kwargs"),
        ("3", "must hold instruction_id_list and kwargs"),
    ],
)
def test_constraints_that_cannot_be_checked_are_refused_with_their_prompt(reference, message):
    """A missing argument would not fail: the checker would draw it at random."""
    with pytest.raises(InputError, match=message) as caught:
        CheckScorer("ifeval", "followed", {"Name a river.": TaskReference("ifeval", reference)})
    assert "The prompt 'Name a river.'" in caught.value.problem


def test_keys_that_hold_null_are_no_arguments(check):
    """The copy on a model hub writes every argument of every constraint, most of them null."""
    padded = (NO_COMMA[0], dict.fromkeys(("num_words", "keywords", "relation")))
    check.require(reference_of(padded))
    assert check.score("p", "no comma here", reference_of(padded)) == 1


def test_an_answer_scores_the_same_every_time(check):
    """Regression: the published checker counts a random letter where "!" was asked for."""
    arguments = {"letter": "!", "let_frequency": 6, "let_relation": "at least"}
    reference = reference_of(("keywords:letter_frequency", arguments))
    answer = "the quick brown fox jumps over the lazy dog and sees the sea " * 2
    assert len({check.score("p", answer, reference) for _ in range(40)}) == 1


def test_nothing_is_downloaded(monkeypatch):
    """The sentence splitter's data come from a package; nltk would download them."""

    def refuse(*args, **more):
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    ifeval._loaded_package.cache_clear()
    reference = reference_of(SENTENCES)
    assert ConstraintCheck().score("p", "It is so. It was so. It will be.", reference) == 1
    searched = import_module("nltk.data").path
    assert not [path for path in searched if "alignpro-lite-" in path]


@pytest.mark.parametrize("package", ["if_verifiable", "punkt", "langdetect"])
def test_a_missing_package_names_the_extra(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    ifeval._loaded_package.cache_clear()
    with pytest.raises(MissingDependencyError, match="The check ifeval needs") as caught:
        ConstraintCheck()
    assert "[cpu,eval]" in caught.value.cure
    ifeval._loaded_package.cache_clear()


def test_a_reference_is_the_same_text_however_its_keys_are_ordered():
    row = {"kwargs": [{"b": 1, "a": 2}], "instruction_id_list": ["x"], "key": 7}
    text = constraints_as_text(row)
    assert json.loads(text) == {"instruction_id_list": ["x"], "kwargs": [{"a": 2, "b": 1}]}
    assert text == constraints_as_text(dict(reversed(row.items())))
