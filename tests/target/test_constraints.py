"""Constrained answers, penalties and log-probabilities, on the tiny committed GGUF."""

from __future__ import annotations

import gc
import json
import weakref
from contextlib import contextmanager
from dataclasses import replace

import jsonschema
import numpy as np
import pytest

from alignpro_lite import ANY_JSON_OBJECT, Gbnf, JsonSchema, Message, Penalties, Sampling
from alignpro_lite.decoding.guide import Guide
from alignpro_lite.decoding.sampling import Draw
from alignpro_lite.errors import InputError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.question import Question
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_TARGET
from tests.support import reasoning_models as models

ASK = [Message("user", "What is 12 + 345?")]
SETTINGS = TargetSettings(context=1024, sequences=4, n_gpu_layers=0, gpu=None, threads=1)
SCHEMA = {
    "type": "object",
    "properties": {
        "sum": {"type": "integer", "minimum": 0, "maximum": 999},
        "unit": {"enum": ["none", "m"]},
        "parts": {"type": "array", "items": {"type": "integer", "maximum": 9}, "maxItems": 2},
    },
    "required": ["sum", "unit", "parts"],
    "additionalProperties": False,
}
SHAPED = Question(ASK, 200, Sampling(seed=3), count=4, constraint=JsonSchema(SCHEMA))
GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def target():
    with LlamaTarget(TINY_TARGET, read_header(TINY_TARGET), SETTINGS) as loaded:
        yield loaded


def texts(target, question):
    streams = target.answer(question)
    return ["".join(stream) for stream in streams], streams


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=1),
        Sampling(temperature=0.7, top_k=5, top_p=0.9, min_p=0.05, seed=2),
        Sampling(temperature=2, seed=3),
        GREEDY,
    ],
    ids=str,
)
def test_every_answer_is_valid_json(target, sampling):
    answers, streams = texts(target, replace(SHAPED, sampling=sampling))
    for answer, stream in zip(answers, streams, strict=True):
        jsonschema.validate(json.loads(answer), SCHEMA)
        assert stream.finish_reason == "stop"


def test_answers_differ_and_repeat(target):
    answers, _ = texts(target, SHAPED)
    assert len(set(answers)) > 1
    assert texts(target, SHAPED)[0] == answers
    assert texts(target, replace(SHAPED, count=1, first=2))[0] == answers[2:3]


def test_a_closed_target_gives_its_weights_back():
    """Holds down: what guides an answer tokenises with the model, and so kept it in memory."""
    with LlamaTarget(TINY_TARGET, read_header(TINY_TARGET), SETTINGS) as loaded:
        weights = weakref.ref(loaded._native)
        _, streams = texts(loaded, SHAPED)
    gc.collect()
    assert streams
    assert weights() is None


def test_a_cut_answer_says_so(target):
    (answer,), (stream,) = texts(target, replace(SHAPED, count=1, max_tokens=5))
    assert (stream.finish_reason, stream.token_count) == ("length", 5)
    assert answer.startswith("{")


def test_different_constraints_are_decoded_together(target):
    questions = [
        SHAPED,
        Question(ASK, 40, Sampling(seed=4), constraint=Gbnf('root ::= "yes" | "no"')),
        Question(ASK, 20, Sampling(seed=5)),
        Question(ASK, 200, Sampling(seed=6), constraint=ANY_JSON_OBJECT),
    ]
    shaped, ((chosen,), (free,), (thing,)) = (
        lambda started: (started[0], [list(map("".join, streams)) for streams in started[1:]])
    )(target.answer_together([replace(q, max_tokens=min(q.max_tokens, 100)) for q in questions]))
    assert all("".join(stream).startswith("{") for stream in shaped)
    assert chosen in ("yes", "no")
    assert not free.startswith("{")
    assert thing.startswith("{")


def test_the_log_probability_is_that_of_the_model(target):
    """Holds down: the mask of the first sequence stayed in the logits that others share."""
    _, streams = texts(target, replace(SHAPED, max_tokens=100))
    scores = target.score(ASK, [stream.tokens for stream in streams])
    for stream, score in zip(streams, scores, strict=True):
        assert stream.log_prob == pytest.approx(score, abs=0.1)
        assert np.isfinite(score)


def test_an_answer_goes_on_where_it_was_cut(target):
    begun = target.answer(replace(SHAPED, count=1, max_tokens=4))[0]
    list(begun)
    answers, streams = texts(target, replace(SHAPED, begun=tuple(begun.draws), log_probs=0))
    for answer, stream in zip(answers, streams, strict=True):
        jsonschema.validate(json.loads(answer), SCHEMA)
        assert stream.tokens[:4] == begun.tokens
        assert "".join(token.text for token in stream.log_probs) == answer


def test_a_beginning_that_is_not_allowed_is_refused(target):
    begun = (Draw(target.encode("x")[0], 0.0),)
    with pytest.raises(InputError, match="cannot be kept"):
        target.answer(replace(SHAPED, begun=begun))


def test_what_cannot_be_kept_is_refused_before_anything_is_decoded(target):
    refused = Question(ASK, 20, constraint=JsonSchema({"not": {"type": "object"}}))
    with pytest.raises(InputError, match='"not"'):
        target.answer_together([SHAPED, refused])
    assert texts(target, replace(SHAPED, count=1))[0]


def test_a_constraint_that_fails_midway_ends_its_own_answer(target, monkeypatch):
    """Holds down: an error of one sequence would have closed the target for all of them."""
    allowed = Guide.allowed

    def failing(guide):
        guide.steps = getattr(guide, "steps", 0) + 1
        if guide.steps > 3:
            raise InputError("It is too complex.", "Simplify it.")
        return allowed(guide)

    monkeypatch.setattr(Guide, "allowed", failing)
    ((shaped,), (free,)) = target.answer_together(
        [replace(SHAPED, count=1), Question(ASK, 10, GREEDY)]
    )
    with pytest.raises(InputError, match="too complex"):
        list(shaped)
    assert "".join(free)
    assert free.finish_reason == "length"


@contextmanager
def thinker(tmp_path, template, tags=models.THINK_TAGS):
    with models.open_target(models.write(tmp_path / "m.gguf", template, tags)) as loaded:
        yield loaded, {tag: loaded.template_tokens(tag)[0] for tag in tags}


def once(target, tags):
    """The tiny model would begin a second thought."""
    never = [tags["<think>"], *target.encode("<")[:-1]]
    return Penalties(bias=tuple((token, -100) for token in never))


@pytest.mark.parametrize("template", [models.OPENED, models.ALWAYS])
def test_a_constraint_begins_after_the_thought(tmp_path, template):
    with thinker(tmp_path, template) as (target, tags):
        opening, closing = models.THINK_TAGS
        thought = [tags[opening]] if template == models.ALWAYS else []
        thought += [*target.encode("A sum.")[:-1], tags[closing]]
        begun = tuple(Draw(token, 0.0) for token in thought)
        answer = Gbnf('root ::= "yes" | "no"')
        question = Question(ASK, 60, constraint=answer, begun=begun)
        (said,), (stream,) = texts(target, replace(question, penalties=once(target, tags)))
        assert said in ("yes", "no")
        assert (stream.reasoning, stream.finish_reason) == ("A sum.", "stop")


def test_a_thought_may_be_left_out_and_not_be_begun_where_it_is_off(tmp_path):
    with thinker(tmp_path, models.SWITCH) as (target, tags):
        answer = Gbnf('root ::= "yes" | "no"')
        drawn = Penalties(bias=((tags["<think>"], 100),))
        question = Question(ASK, 20, GREEDY, penalties=drawn, constraint=answer)
        _, (thinking,) = texts(target, replace(question, thinking="on"))
        (said,), _ = texts(target, replace(question, thinking="off"))
        assert thinking.tokens[0] == tags["<think>"]
        assert said in ("yes", "no")


def test_tokens_of_the_answer_are_listed_with_alternatives(target):
    (answer,), (stream,) = texts(target, Question(ASK, 12, GREEDY, log_probs=3))
    assert b"".join(token.piece for token in stream.log_probs).decode(errors="replace") == answer
    for token in stream.log_probs:
        chances = [other.log_prob for other in token.alternatives]
        assert len(chances) == 3
        assert chances == sorted(chances, reverse=True)
        assert (token.token, token.log_prob) == (
            token.alternatives[0].token,
            pytest.approx(chances[0]),
        )
    assert sum(token.log_prob for token in stream.log_probs) == pytest.approx(stream.log_prob)


def test_passages_carry_their_tokens(target):
    (stream,) = target.answer(Question(ASK, 30, Sampling(seed=8), log_probs=0))
    passages = list(stream.passages())
    assert [token for passage in passages for token in passage.log_probs] == stream.log_probs
    assert all(token.alternatives == () for token in stream.log_probs)


def test_a_thought_is_not_listed(tmp_path):
    with thinker(tmp_path, models.OPENED) as (target, tags):
        thought = [*target.encode("A sum.")[:-1], tags["</think>"]]
        answer = Gbnf('root ::= "\\n\\nyes"')
        begun = tuple(Draw(token, 0.0) for token in thought)
        question = Question(ASK, 60, constraint=answer, begun=begun, log_probs=1)
        (said,), (stream,) = texts(target, replace(question, penalties=once(target, tags)))
        assert said == "yes"
        assert "".join(token.text for token in stream.log_probs).strip() == "yes"


def test_nothing_is_listed_unless_it_is_asked_for(target):
    _, (stream,) = texts(target, Question(ASK, 5))
    assert stream.log_probs == []
    assert stream.draws[0].alternatives == ()


def test_penalties_make_repetition_less_likely(target):
    def repeats(penalties):
        _, (stream,) = texts(target, Question(ASK, 60, GREEDY, penalties=penalties))
        return len(stream.tokens) - len(set(stream.tokens))

    plain = repeats(Penalties())
    assert repeats(Penalties(presence=2, frequency=2)) < plain
    assert repeats(Penalties(repeat=1.5)) < plain
    assert repeats(Penalties(frequency=-2)) >= plain


def test_a_bias_forbids_and_favours_a_token(target):
    _, (plain,) = texts(target, Question(ASK, 5, GREEDY))
    first = plain.tokens[0]
    _, (without,) = texts(
        target, Question(ASK, 5, GREEDY, penalties=Penalties(bias=((first, -100),)))
    )
    _, (only,) = texts(target, Question(ASK, 5, GREEDY, penalties=Penalties(bias=((7, 100),))))
    assert first not in without.tokens
    assert only.tokens == [7] * 5


def test_a_bias_for_a_token_that_there_is_not_is_refused(target):
    with pytest.raises(InputError, match="from 0 to 383, found 384"):
        target.answer(Question(ASK, 5, penalties=Penalties(bias=((384, 1),))))


def test_what_an_answer_begins_with_counts_for_the_penalties(target):
    begun = target.answer(Question(ASK, 20, GREEDY))[0]
    list(begun)
    whole = Question(ASK, 40, GREEDY, penalties=Penalties(presence=2), begun=tuple(begun.draws))
    _, (stream,) = texts(target, whole)
    again = Question(ASK, 40, GREEDY, begun=tuple(begun.draws))
    _, (plain,) = texts(target, again)
    old = set(begun.tokens)
    assert sum(t in old for t in stream.tokens[20:]) < sum(t in old for t in plain.tokens[20:])
