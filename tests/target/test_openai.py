"""The OpenAI-compatible target, against a server of its own on 127.0.0.1."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite import Message, Sampling
from alignpro_lite.errors import CancelledError, InputError
from alignpro_lite.registry.http import HttpError
from alignpro_lite.target.endpoint import Endpoint
from alignpro_lite.target.openai import OpenAiTarget, _choices
from alignpro_lite.target.rollout import Answer, AnswerPlan, TargetFailure
from tests.support import answers_of
from tests.support.chat_server import serve

ASK = [Message("system", "Be brief."), Message("user", "hello")]
SAMPLING = Sampling(temperature=0.7, top_p=0.9, seed=5)
KEY = "sk-very-secret"


@pytest.fixture
def chat():
    with serve() as running:
        yield running


def open_target(url, **options):
    quick = {"retry_pauses": (0.01, 0.01), "timeout": 5.0, **options}
    return OpenAiTarget(url, "tiny", **quick)


def ask(url, conversations=(ASK,), count=2, **options):
    return answers_of(open_target(url, **options), conversations, count, 16, SAMPLING)


def texts(outcomes):
    return [one.text for several in outcomes for one in several]


def test_one_request_brings_all_answers_of_a_conversation(chat):
    ((first, second),) = ask(chat.url)
    (body,) = chat.bodies
    assert body.pop("seed") in range(2**31)
    assert body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hello"},
        ],
        "n": 2,
        "max_tokens": 16,
        "temperature": 0.7,
        "top_p": 0.9,
    }
    assert (first.finish_reason, first.tokens, second.tokens) == ("stop", None, None)
    assert first.text.startswith("hello ")


def test_cuts_that_openai_does_not_know_are_sent_when_set(chat):
    answers_of(open_target(chat.url), [ASK], 1, 8, Sampling(top_k=7, min_p=0.1))
    assert (chat.bodies[0]["top_k"], chat.bodies[0]["min_p"]) == (7, 0.1)


def test_a_server_that_ignores_n_is_asked_again_with_other_seeds(chat):
    chat.most_choices = 1
    (answers,) = ask(chat.url, count=3)
    assert [body["n"] for body in chat.bodies] == [3, 2, 1]
    assert len({body["seed"] for body in chat.bodies}) == 3
    assert [one.tokens for one in answers] == [7, 7, 7]


def test_a_server_that_refuses_n_is_asked_singly(chat):
    chat.refuse_n = True
    (answers,) = ask(chat.url, count=3)
    assert [body["n"] for body in chat.bodies] == [3, 1, 1, 1]
    assert len({one.text for one in answers}) == 3


def test_a_seed_repeats_and_equal_conversations_differ(chat):
    one, again = (texts(ask(chat.url, [ASK, ASK])) for _ in range(2))
    assert one == again
    assert len(set(one)) == 4


def test_requests_run_in_parallel_and_come_back_in_order(chat):
    chat.delay = 0.05
    conversations = [[Message("user", f"number {i}")] for i in range(9)]
    outcomes = ask(chat.url, conversations, count=1, parallel=3)
    assert [text.split()[1] for text in texts(outcomes)] == [str(i) for i in range(9)]
    assert 2 <= chat.most_busy <= 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_passing_failures_are_repeated(chat, status):
    chat.statuses = [status, status]
    assert len(texts(ask(chat.url))) == 2
    assert len(chat.bodies) == 3


def test_a_dropped_connection_is_repeated(chat):
    chat.drops = 2
    assert len(texts(ask(chat.url))) == 2


def test_retry_after_is_honoured(chat):
    chat.statuses, chat.headers = [429], {"Retry-After": "1"}
    start = time.monotonic()
    ask(chat.url)
    assert time.monotonic() - start >= 1


def test_a_conversation_that_fails_does_not_lose_the_others(chat):
    conversations = [[Message("user", text)] for text in ("good", "bad", "broken", "fine")]
    chat.failing_prompts = {"bad": 400, "broken": 500}
    outcomes = ask(chat.url, [*conversations, [], [Message("user", "\ud800")]])
    assert [type(several[0]) for several in outcomes] == [
        *(Answer, TargetFailure, TargetFailure, Answer, TargetFailure, TargetFailure)
    ]
    assert [len(several) for several in outcomes] == [2] * 6
    assert outcomes[1][0].reason == f"{chat.url}/chat/completions answered 400 Bad Request: not now"


def test_answers_had_before_a_failure_are_kept(chat):
    chat.most_choices, chat.statuses = 1, [200, 500, 500, 500]
    (outcomes,) = ask(chat.url, count=3)
    assert [type(one) for one in outcomes] == [Answer, TargetFailure, TargetFailure]


@pytest.mark.parametrize(
    ("status", "cure"), [(401, "valid key"), (404, "/v1"), (405, "/v1"), (402, "Pay")]
)
def test_what_never_heals_is_an_error_at_once(chat, status, cure):
    chat.statuses = [status] * 9
    with pytest.raises(
        InputError, match=f"{chat.url}/chat/completions answered {status}"
    ) as caught:
        ask(chat.url)
    assert cure in caught.value.cure
    assert len(chat.bodies) == 1


def test_a_server_that_is_not_there_is_a_failure_that_names_it():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        ((outcome,),) = ask(url, count=1)
    assert outcome.reason.startswith(f"{url}/chat/completions cannot be reached")


def test_a_silent_server_is_given_up(chat):
    chat.delay = 0.5
    ((outcome,),) = ask(chat.url, count=1, timeout=0.05, retry_pauses=())
    assert "timed out" in outcome.reason


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"<html>log in</html>", "expected JSON"),
        (b"\xff\xfe", "expected JSON"),
        (b"[" * 100_000, "expected JSON"),
        (b"[]", "chat completion"),
        (b'{"choices": []}', "chat completion"),
        (b'{"choices": [{"text": "old style"}]}', "chat completion"),
        (b'{"choices": [{"message": {"content": null}, "finish_reason": "tool_calls"}]}', "text"),
    ],
)
def test_an_answer_of_another_form_is_a_failure(chat, raw, says):
    chat.raw = raw
    ((outcome,),) = ask(chat.url, count=1)
    assert isinstance(outcome, TargetFailure)
    assert says in outcome.reason
    assert "\n" not in outcome.reason
    assert len(outcome.reason) < 400


def test_half_a_character_is_replaced(chat):
    """Holds down: JSON can spell a lone surrogate, which no file can be written with."""
    chat.raw = rb'{"choices": [{"message": {"content": "a\ud800b"}}]}'
    assert texts(ask(chat.url, count=1)) == ["a?b"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "finish_reason", "usage"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_any_json_is_answers_or_a_failure(answer):
    try:
        outcomes = _choices(answer, str)
    except HttpError:
        return
    assert outcomes
    assert all(isinstance(one, Answer | TargetFailure) for one in outcomes)


def test_the_key_is_sent_and_never_shown(chat, monkeypatch):
    """Services are known to repeat a wrong key in their complaint."""
    monkeypatch.setenv("TEST_KEY", f" {KEY}\n")
    ask(chat.url, key_variable="TEST_KEY")
    assert chat.authorizations == [f"Bearer {KEY}"]
    chat.complaint = {"error": {"message": f"Incorrect key {KEY}"}}
    chat.statuses = [401]
    with pytest.raises(InputError) as caught:
        ask(chat.url, key_variable="TEST_KEY")
    assert "Incorrect key ***" in str(caught.value)
    target = open_target(chat.url, key_variable="TEST_KEY")
    assert KEY not in repr(target) + repr(target._endpoint)


@pytest.mark.parametrize(
    "answer",
    [
        {"echo": KEY},
        {"choices": [], "headers": {"Authorization": f"Bearer {KEY}"}},
        {"choices": [{"message": {"content": [KEY]}}]},
        {"choices": [{"message": {"content": None}, "finish_reason": f"bad {KEY}"}]},
        [f"{'x' * 180}{KEY}"],
    ],
)
def test_a_key_that_an_answer_repeats_is_not_shown(chat, monkeypatch, answer):
    """Only errors were cleaned; a cut in the middle of a key left its first half."""
    monkeypatch.setenv("TEST_KEY", KEY)
    chat.raw = json.dumps(answer).encode()
    ((failure, *_),) = ask(chat.url, count=1, key_variable="TEST_KEY")
    assert isinstance(failure, TargetFailure)
    assert KEY[:6] not in failure.reason


@pytest.mark.parametrize("name", [KEY, "hf_AbCdEf0123456789", "secret-key", "Bearer x"])
def test_a_key_in_the_place_of_its_variable_is_not_shown(name):
    with pytest.raises(InputError, match="name of an environment variable") as caught:
        open_target("https://host/v1", key_variable=name)
    assert name not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_no_redirect_is_followed(chat, monkeypatch, status):
    """Holds down: the key would go to whatever host the redirect names."""
    monkeypatch.setenv("TEST_KEY", KEY)
    with serve() as other:
        chat.statuses, chat.headers = [status], {"Location": f"{other.url}/chat/completions"}
        with pytest.raises(InputError, match="redirect"):
            ask(chat.url, key_variable="TEST_KEY")
        assert other.bodies == []


def test_no_proxy_comes_between_this_machine_and_itself(chat, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert len(texts(ask(chat.url))) == 2


def test_a_key_travels_in_plain_text_to_this_machine_only(monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    for local in ("http://localhost:1/v1", "http://127.0.0.9/v1", "http://[::1]:1/v1"):
        open_target(local, key_variable="TEST_KEY")
    open_target("HTTPS://example.com/v1", key_variable="TEST_KEY")
    open_target("http://example.com/v1")
    for remote in ("http://example.com/v1", "http://localhost.example.com", "http://10.0.0.1"):
        with pytest.raises(InputError, match="plain text"):
            open_target(remote, key_variable="TEST_KEY")


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000/v1", "ftp://host/v1", "file:///etc/passwd", "http://", "http://[::1"),
        *("http://host:port/v1", "http://a..b/v1", "http://host/a b", "http://host/\u00e9"),
        *("http://user:pass@host/v1", "http://host/v1?key=1", "http://host/v1#a"),
        "http://host:99999/v1",
    ],
)
def test_an_address_that_cannot_be_used_is_refused(url):
    with pytest.raises(InputError) as caught:
        open_target(url)
    assert "pass" not in str(caught.value).replace("password", "").replace("passwd", "")


def test_a_missing_or_broken_key_is_refused(monkeypatch):
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(InputError, match="TEST_KEY, which is not set") as caught:
        open_target("https://host/v1", key_variable="TEST_KEY")
    assert "export TEST_KEY" in caught.value.cure
    monkeypatch.setenv("TEST_KEY", "two\nlines")
    with pytest.raises(InputError, match="characters") as caught:
        open_target("https://host/v1", key_variable="TEST_KEY")
    assert "two" not in str(caught.value)


def test_settings_out_of_range_are_refused():
    for options in ({"timeout": 0.0}, {"parallel": 0}):
        with pytest.raises(InputError, match="at least 1 parallel"):
            open_target("http://host/v1", **options)


def test_closing_ends_the_wait_between_attempts(chat):
    chat.statuses = [503] * 9
    endpoint = Endpoint(f"{chat.url}/chat/completions", None, 5.0, [60.0])
    threading.Timer(0.1, endpoint.close).start()
    start = time.monotonic()
    with pytest.raises(CancelledError):
        endpoint.post({"messages": [{"content": "hi"}], "n": 1, "seed": 0})
    assert time.monotonic() - start < 10


def test_an_interrupted_program_does_not_wait_for_a_silent_endpoint(chat):
    """Holds down: threads of an executor would be waited for when the interpreter ends."""
    chat.delay = 60.0
    code = (
        # A shell that starts the tests in the background leaves SIGINT ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import _thread, threading\n"
        "from alignpro_lite import Message, Sampling\n"
        "from alignpro_lite.target.openai import OpenAiTarget\n"
        "from alignpro_lite.target.rollout import AnswerPlan\n"
        f"target = OpenAiTarget({chat.url!r}, 'tiny', parallel=1)\n"
        "threading.Timer(0.2, _thread.interrupt_main).start()\n"
        "try:\n"
        "    target.answers([[Message('user', 'hi')]] * 9, AnswerPlan(1, 4), range(9))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")
    assert len(chat.bodies) <= 1


def message(content, **thought):
    return {"choices": [{"message": {"content": content, **thought}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_server_keeps_apart_as_a_thought_is_no_answer(chat, name):
    chat.raw = json.dumps(message("It is 357.", **{name: "It is a sum."})).encode()
    assert ask(chat.url, count=1) == [[Answer("It is 357.", None, "stop")]]


MISSING = "no field of that name"


@pytest.mark.parametrize("content", [None, "", "\n\n", MISSING])
def test_a_thought_without_an_answer_is_a_failure(chat, content):
    """Holds down: an answer cut inside its thought was an empty answer, and was scored."""
    said = message(content, reasoning_content="It is")
    if content is MISSING:
        del said["choices"][0]["message"]["content"]
    chat.raw = json.dumps(said).encode()
    ((outcome,),) = ask(chat.url, count=1)
    assert isinstance(outcome, TargetFailure)
    assert "the target was still thinking" in outcome.reason


@pytest.mark.parametrize("thinking", ["on", "off", None])
def test_the_switch_of_the_template_is_sent_if_it_is_set(chat, thinking):
    plan = AnswerPlan(1, 8, thinking=thinking)
    open_target(chat.url).answers([ASK], plan, [0])
    sent = chat.bodies[0].get("chat_template_kwargs", {})
    assert sent.get("enable_thinking") == {"on": True, "off": False, None: None}[thinking]
