"""Chat completions and completions, as the official client of OpenAI asks for them."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import httpx
import openai
import pytest

from alignpro_lite import Message, Request, Sampling
from alignpro_lite.decoding.log_probs import TokenLogProb
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.app import model_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules
from alignpro_lite.serve.replies import TextForm
from tests.support.served import served

ASK = [{"role": "user", "content": "Say something about the sky."}]
USUAL = Request(max_tokens=12, sampling=Sampling(temperature=0))
"""Greedy: what is decoded at the same time changes rounding, and so what is drawn."""


@pytest.fixture(scope="module")
def server(tiny_model):
    app = model_app(tiny_model, ServedModel("tiny", ("gpt-4o",), Usual(USUAL)), Limits(), Rules())
    with served(app) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_chat_completion(client, tiny_model):
    done = client.chat.completions.create(model="tiny", messages=ASK, seed=3)
    (choice,) = done.choices
    expected = tiny_model.run(ASK[0]["content"], USUAL.with_seed(3))
    assert choice.message.role == "assistant"
    assert choice.message.content == expected.answer
    assert choice.finish_reason == expected.finish_reason
    assert done.object == "chat.completion"
    assert done.model == "tiny"
    assert done.usage.completion_tokens == expected.answer_tokens
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    told = done.alignpro
    assert told["sent"] == expected.choice.sent
    assert told["prompt"] == ASK[0]["content"]
    assert told["reason"] == expected.choice.reason
    assert told["certificate"]["drawn"] == 1
    assert told["seed"] == 3


def test_a_stream_says_the_same(client):
    settings = {"model": "tiny", "messages": ASK, "seed": 3}
    whole = client.chat.completions.create(**settings)
    chunks = list(
        client.chat.completions.create(
            **settings, stream=True, stream_options={"include_usage": True}
        )
    )
    *pieces, usage = chunks
    text = "".join(chunk.choices[0].delta.content or "" for chunk in pieces)
    assert text == whole.choices[0].message.content
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert pieces[-1].alignpro["sent"] == whole.alignpro["sent"]
    assert usage.choices == []
    assert usage.usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_bare_prompt(client):
    settings = {"model": "tiny", "prompt": "Say something.", "seed": 5}
    done = client.completions.create(**settings)
    assert done.object == "text_completion"
    assert done.choices[0].text
    pieces = client.completions.create(**settings, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == done.choices[0].text


def test_several_answers_to_one_rewrite(client):
    settings = {"model": "tiny", "messages": ASK, "n": 3, "temperature": 1}
    done = client.chat.completions.create(**settings)
    assert [choice.index for choice in done.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in done.choices}) == 3
    texts = ["", "", ""]
    finished = []
    for chunk in client.chat.completions.create(**settings, stream=True):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            finished.append(choice.index)
    assert len(set(texts)) == 3
    assert sorted(finished) == [0, 1, 2]


def test_several_answers_to_an_edited_rewrite_read_the_same(client):
    """All but the first read an edited text without what looked like markers in it."""
    edited = {"alignpro": {"rewrite": "What does <keep>this</keep> mean?"}}
    done = client.chat.completions.create(
        model="tiny", messages=ASK, n=3, temperature=0, extra_body=edited
    )
    assert len({choice.message.content for choice in done.choices}) == 1


def test_stop_and_length(client):
    whole = client.chat.completions.create(model="tiny", messages=ASK, seed=1, max_tokens=8)
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 8
    text = whole.choices[0].message.content
    cut = client.chat.completions.create(
        model="tiny", messages=ASK, seed=1, max_completion_tokens=8, stop=[text[3:6]]
    )
    assert cut.choices[0].message.content == text[: text.index(text[3:6])]
    assert cut.choices[0].finish_reason == "stop"


def test_a_message_of_the_assistant_can_be_sent_back(client):
    """Clients send it with all the fields that they know, null or empty."""
    first = client.chat.completions.create(model="tiny", messages=ASK)
    again = [*ASK, first.choices[0].message, {"role": "user", "content": "And then?"}]
    assert client.chat.completions.create(model="tiny", messages=again).choices


def test_instructions_history_and_parts_reach_the_target(client, tiny_model):
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "Say something."}]},
    ]
    done = client.chat.completions.create(
        model="tiny", messages=messages, seed=9, extra_body={"alignpro": {"mode": "off"}}
    )
    request = Request(
        system="Be brief.",
        history=(Message("user", "Hello"), Message("assistant", "Hi")),
        max_tokens=12,
        sampling=USUAL.sampling,
        rewrite="off",
    )
    expected = tiny_model.run("Say something.", request.with_seed(9))
    assert done.choices[0].message.content == expected.answer
    assert done.alignpro["changed"] is False
    assert done.alignpro["mode"] == "off"


def test_the_prompter_reads_what_was_said_before(client, tiny_model):
    history = (Message("user", "Name a lake."), Message("assistant", "Garda"))
    before = [{"role": turn.role, "content": turn.content} for turn in history]
    asked = "and the second one?"
    told = [
        client.chat.completions.create(
            model="tiny", messages=[*turns, {"role": "user", "content": asked}], seed=4
        ).alignpro["rewrite"]
        for turns in (before, [])
    ]
    request = replace(USUAL, history=history).with_seed(4)
    assert told[0] == tiny_model.rewrite(asked, request=request)[0].text
    assert told[0] != told[1]


def test_the_list_of_models(client):
    assert [model.id for model in client.models.list()] == ["tiny", "gpt-4o"]
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    with pytest.raises(openai.NotFoundError, match="--alias"):
        client.models.retrieve("gpt-5")
    assert client.chat.completions.create(model="gpt-4o", messages=ASK).model == "tiny"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "Tools are not supported"),
        ({"tool_choice": "required"}, "Tools are not supported"),
        ({"functions": [{"name": "f"}]}, "Tools are not supported"),
        ({"modalities": ["text", "audio"]}, "Only text is supported"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, "Audio is not supported"),
        ({"prediction": {"type": "content", "content": "x"}}, "not supported"),
        ({"web_search_options": {}}, "offline"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "needs logprobs"),
        ({"presence_penalty": 3}, "presence_penalty must be a number"),
        ({"response_format": {"type": "xml"}}, "response_format.type must be"),
        ({"verbosity": "low"}, "verbosity"),
        ({"store": True}, "Nothing is stored"),
        ({"temperature": 3}, "temperature must be a number, at least 0 and at most 2"),
        ({"top_p": 0}, "top_p must be a number, above 0"),
        ({"n": 0}, "n must be a whole number, at least 1"),
        ({"n": "two"}, "n must be a whole number"),
        ({"max_tokens": 0}, "max_tokens must be a whole number"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "one of them"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"stop": ["a"] * 17}, "stop must be"),
        ({"stream_options": {"include_usage": True}}, "stream is not true"),
        ({"reasoning_effort": "high"}, "does not think"),
        ({"messages": []}, "messages must be a list"),
        ({"messages": [{"role": "user", "content": ""}]}, "A prompt needs text"),
        ({"messages": [{"role": "user"}]}, "lacks the key messages.0.content"),
        ({"messages": [*ASK, {"role": "assistant", "content": "x"}]}, "must be the user's"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "Tools are not"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "messages.0.role must be"),
        ({"messages": [ASK[0] | {"name": "Ann"}]}, "Names of speakers"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "x"}}],
                    }
                ]
            },
            "no images",
        ),
    ],
)
def test_what_is_not_supported_is_refused_with_a_sentence(client, setting, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.chat.completions.create(**{"model": "tiny", "messages": ASK} | setting)
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"foo": 1}, "unknown key foo"),
        ({"temprature": 1}, "near: temperature"),
        ({"alignpro": {"samles": 2}}, "near: samples"),
        ({"alignpro": {"mode": "approve"}}, "alignpro.mode must be"),
        ({"alignpro": {"strength": 0}}, "alignpro.strength must be a number, above 0"),
        ({"alignpro": {"samples": 1000}}, "alignpro.samples must be"),
        ({"alignpro": {"samples": "auto"}}, "needs a reward"),
        ({"alignpro": {"strength": 0.1}}, "alignpro.strength needs a reward"),
        ({"alignpro": {"guard": "strict"}}, "this server was started without one"),
        ({"alignpro": {"budget_seconds": 3}}, "alignpro.budget_seconds needs a reward"),
        ({"alignpro": {"answers": 2, "reward": False}}, "alignpro.answers needs a reward"),
    ],
)
def test_unknown_fields_are_refused(client, fields, said):
    with pytest.raises(openai.BadRequestError, match=said):
        client.chat.completions.create(model="tiny", messages=ASK, extra_body=fields)


@pytest.mark.parametrize(
    "setting",
    [
        {"user": "me", "metadata": {"a": "b"}, "safety_identifier": "x", "service_tier": "auto"},
        {"tools": [], "store": False, "modalities": ["text"], "logit_bias": {}},
        {"temperature": None, "stop": None, "max_tokens": None, "seed": None},
        {"tool_choice": "none", "verbosity": "medium", "parallel_tool_calls": False},
        {"seed": -1},
        {"seed": 2**40},
        {"reasoning_effort": "none"},
    ],
)
def test_what_asks_for_nothing_is_let_through(client, setting):
    done = client.chat.completions.create(
        model="tiny", messages=ASK, max_tokens=1, extra_body=setting
    )
    assert done.choices


def test_a_prompt_that_cannot_fit_is_refused_before_a_stream_begins(client):
    ask = [{"role": "user", "content": "word " * 20000}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model="tiny", messages=ask, stream=stream)
        assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b'{"a":' * 5000])
def test_what_is_no_json_object_is_refused(server, body):
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("field", ["foo", "messages", "stop", "response_format"])
def test_what_is_nested_too_deep_is_refused(server, field):
    """Some hundred levels were parsed and then too deep for the message about them: 500."""
    deep = '{"a":' * 700 + "1" + "}" * 700
    body = f'{{"model": "tiny", "messages": [], "{field}": {deep}}}'
    answer = httpx.post(f"{server.url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert "nested 100 deep" in answer.json()["error"]["message"]


def test_unknown_paths_and_methods_answer_in_the_same_form(server):
    assert httpx.get(f"{server.url}/v1/embeddings").json()["error"]["type"]
    wrong = httpx.get(f"{server.url}/v1/chat/completions")
    assert wrong.status_code == 405
    assert "GET /v1/chat/completions" in wrong.json()["error"]["message"]


def test_a_rewrite_alone(server, tiny_model):
    body = {"model": "tiny", "messages": ASK, "seed": 3}
    told = httpx.post(f"{server.url}/v1/alignpro/rewrite", json=body).json()
    expected = tiny_model.stream(ASK[0]["content"], USUAL.with_seed(3)).prepare()
    assert told["sent"] == expected.sent
    assert told["certificate"]["reason"] == expected.reason


@pytest.mark.parametrize("temperature", [0, 1])
def test_temperature_0_repeats_its_rewrite_without_a_seed(server, temperature):
    """Holds down: the answer was the most likely one to a rewrite that was drawn anew each time."""
    body = {"model": "tiny", "messages": ASK, "temperature": temperature}
    url = f"{server.url}/v1/alignpro/rewrite"
    first, second = (httpx.post(url, json=body).json() for _ in range(2))
    assert (first["rewrite"] == second["rewrite"]) is (temperature == 0)


def test_a_stream_tells_its_progress_if_asked(client):
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=ASK, stream=True, extra_body={"alignpro": {"progress": True}}
        )
    )
    stages = [chunk.alignpro["stage"] for chunk in chunks if not chunk.choices]
    assert stages == ["rewriting", "candidates", "rewritten"]
    assert chunks[2].alignpro["prompt"] == ASK[0]["content"]


def test_log_probabilities(client):
    settings = {"model": "tiny", "messages": ASK, "seed": 1, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**settings).choices[0]
    tokens = whole.logprobs.content
    assert b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace") == (
        whole.message.content
    )
    assert all(token.logprob <= 0 for token in tokens)
    assert {len(token.top_logprobs) for token in tokens} == {2}
    found = []
    for chunk in client.chat.completions.create(**settings, stream=True):
        found += chunk.choices[0].logprobs.content if chunk.choices[0].logprobs else []
    assert [token.token for token in found] == [token.token for token in tokens]
    # Seeded: a character that two tokens share is a whole one in neither.
    ask = {"model": "tiny", "prompt": "Say something.", "logprobs": 1, "seed": 1}
    text = client.completions.create(**ask).choices[0]
    assert "".join(text.logprobs.tokens) == text.text
    assert len(text.logprobs.top_logprobs[0]) == 1
    assert text.logprobs.text_offset[1] == len(text.logprobs.tokens[0])


def test_a_stream_says_where_tokens_begin_in_the_whole_answer(client):
    """Each chunk counted from 0, and two halves of a character as two."""
    ask = {"model": "tiny", "prompt": "Say something.", "logprobs": 0, "temperature": 2, "n": 2}
    # Not compared with a second request: batched otherwise, its logits are rounded otherwise.
    said = {0: "", 1: ""}
    for chunk in client.completions.create(**ask, seed=1, max_tokens=30, stream=True):
        for choice in chunk.choices:
            if choice.logprobs:
                places = choice.logprobs.text_offset
                assert places[0] == len(said[choice.index])
                assert places == sorted(places)
            said[choice.index] += choice.text
    assert all(said.values())
    whole, half = (TokenLogProb(1, piece, 0.0) for piece in ("Ä".encode(), b"\xc3"))
    other_half = TokenLogProb(2, b"\xa4", 0.0)
    result: Any = SimpleNamespace(answer="äÄÄ", log_probs=[half, other_half, whole, whole])
    assert TextForm().choice(result)["logprobs"]["text_offset"] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object"},
        {
            "type": "json_schema",
            "json_schema": {
                "name": "answer",
                "strict": True,
                "schema": {
                    "type": "object",
                    "properties": {"yes": {"type": "boolean"}},
                    "required": ["yes"],
                    "additionalProperties": False,
                },
            },
        },
    ],
)
def test_structured_output(client, form):
    done = client.chat.completions.create(
        model="tiny", messages=ASK, response_format=form, max_tokens=200, logit_bias={"1": -1}
    )
    if done.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(done.choices[0].message.content), dict)
    assert done.alignpro["changed"] is False, "auto leaves prompts for structured output alone"


def test_a_schema_that_cannot_be_kept_is_refused(client):
    schema = {"type": "object", "properties": {"a": {"$ref": "https://example.com/x"}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="ref"):
        client.chat.completions.create(model="tiny", messages=ASK, response_format=form)


def test_a_grammar_and_penalties(client):
    done = client.chat.completions.create(
        model="tiny",
        messages=ASK,
        presence_penalty=0.5,
        frequency_penalty=0.5,
        extra_body={"grammar": 'root ::= "yes" | "no"', "repeat_penalty": 1.1},
    )
    assert done.choices[0].message.content in ("yes", "no")
