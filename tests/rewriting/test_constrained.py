"""Answers of a given form: the prompt is rewritten only if asked for, also with several samples."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest

from alignpro_lite import Gbnf, JsonSchema, Request, RhoStar, Sampling, Text
from alignpro_lite.errors import InputError

SCHEMA = {
    "type": "object",
    "properties": {"words": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 20}},
    "required": ["words"],
    "additionalProperties": False,
}
SHAPED = Request(max_tokens=150, sampling=Sampling(seed=5), constraint=JsonSchema(SCHEMA))
PROMPT = "Name two letters."


def test_a_constrained_prompt_is_kept_unless_rewriting_is_on(model):
    kept = model.run(PROMPT, SHAPED)
    rewritten = model.run(PROMPT, replace(SHAPED, rewrite="on", rho_star=RhoStar(strength=0.1)))
    assert (kept.choice.sent, kept.choice.reason) == (PROMPT, "the answer has a given form")
    assert kept.choice.rewrite is None
    assert rewritten.choice.rewrite is not None
    for result in (kept, rewritten):
        jsonschema.validate(json.loads(result.answer), SCHEMA)


@pytest.mark.parametrize("trial_tokens", [6, 150])
@pytest.mark.parametrize("guard", ["strict", "balanced", "off"])
def test_several_samples_keep_the_form_and_the_log_probabilities(model, guard, trial_tokens):
    """A trial that was cut is continued inside the constraint, and its tokens stay listed."""
    rho_star = RhoStar(
        samples=3, strength=0.1, guard=guard, guard_answers=2, trial_tokens=trial_tokens
    )
    request = replace(SHAPED, rewrite="on", rho_star=rho_star, log_probs=1)
    result = model.run(PROMPT, request)
    jsonschema.validate(json.loads(result.answer), SCHEMA)
    assert result.certificate.answers > 0
    assert "".join(token.text for token in result.log_probs) == result.answer
    assert all(len(token.alternatives) == 1 for token in result.log_probs)


def test_text_events_carry_what_the_result_lists(model):
    stream = model.stream(PROMPT, replace(SHAPED, log_probs=0))
    told = [
        token for event in stream.events() if isinstance(event, Text) for token in event.log_probs
    ]
    assert tuple(told) == stream.result().log_probs


def test_what_cannot_be_kept_is_refused_before_the_rewrite(model):
    with pytest.raises(InputError, match="needs itself again"):
        model.stream(PROMPT, Request(constraint=Gbnf("root ::= root")))


@pytest.mark.parametrize("count", [-1, 21])
def test_a_number_of_alternatives_that_is_not_listed_is_refused(count):
    with pytest.raises(InputError, match="0 to 20"):
        Request(log_probs=count)
