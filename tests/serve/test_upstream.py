"""In front of another server: one field of a request changes, and nothing of the answer."""

from __future__ import annotations

import gzip
import json
import select
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from alignpro_lite import Request
from alignpro_lite.cli import cli
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.app import upstream_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.guarding import Rules
from alignpro_lite.serve.upstream import Elsewhere, Rewriter
from tests.support.scripted_models import FakePrompter
from tests.support.served import served

PROMPT = "Say something about the sky."
REWRITE = PROMPT + " Answer in one sentence."
ASK = [{"role": "user", "content": PROMPT}]
CHUNKS = [
    {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    for text in ("It ", "is ", "blue.")
]
COMPLETION = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "other",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "It is blue."},
            "finish_reason": "stop",
        }
    ],
    "odd": {"kept": [1.5, None]},
}


class StandIn:
    """Another server, and what it was sent."""

    def __init__(self):
        self.url = ""
        self.requests = []
        self.proceed = threading.Event()
        self.gone = threading.Event()


@contextmanager
def stand_in():
    server = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.take()

        def do_POST(self):
            self.take()

        def take(self):
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            server.requests.append((self.command, self.path, dict(self.headers.items()), raw))
            body = json.loads(raw) if raw else {}
            if body.get("model") == "broken":
                self.reply(418, {"error": {"message": "teapot", "type": "t", "code": "c"}})
            elif body.get("stream"):
                self.stream()
            else:
                self.reply(200, COMPLETION if raw else {"object": "list", "data": []})

        def reply(self, status, data):
            content = gzip.compress(json.dumps(data).encode())
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("X-Request-Id", "r1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def stream(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Connection", "close")
            self.end_headers()
            for number, chunk in enumerate(CHUNKS):
                while number and not server.proceed.wait(0.01):
                    if self.is_alone():
                        server.gone.set()
                        return
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")

        def is_alone(self):
            """Whether the other side has closed; a write may succeed all the same."""
            readable, _, _ = select.select([self.connection], [], [], 0)
            return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        server.url = f"http://127.0.0.1:{listener.server_address[1]}/v1"
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield server
        listener.shutdown()
        thread.join()


@pytest.fixture
def other():
    with stand_in() as server:
        yield server


@pytest.fixture
def serve():
    def open_before(elsewhere, rules=None):
        prompter: Any = FakePrompter([REWRITE])
        rewriter = Rewriter(prompter, Usual(Request()), 2)
        return served(upstream_app(elsewhere, rewriter, Limits(), rules or Rules()))

    return open_before


@pytest.fixture
def server(serve, other):
    with serve(Elsewhere(other.url, None, True)) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="theirs", max_retries=0) as client:
        yield client


def test_only_the_last_prompt_changes(client, other):
    odd = {"tool_choice": "auto", "x": {"y": [1.5, None]}, "seed": 7}
    messages = [{"role": "system", "content": "Be brief."}, *ASK]
    answer = client.chat.completions.with_raw_response.create(
        model="other", messages=messages, extra_body=odd
    )
    (request,) = other.requests
    method, path, headers, raw = request
    assert (method, path) == ("POST", "/v1/chat/completions")
    sent = json.loads(raw)
    assert sent["messages"][0] == messages[0]
    assert sent["messages"][1] == {"role": "user", "content": REWRITE}
    assert {name: sent[name] for name in odd} == odd
    assert set(sent) == {"model", "messages", *odd}
    assert headers["authorization"] == "Bearer theirs"
    assert headers["Host"] in other.url
    assert answer.http_response.json() == COMPLETION
    assert answer.headers["x-request-id"] == "r1"
    assert answer.headers["x-alignpro-changed"] == "true"


def test_a_body_that_does_not_change_is_sent_byte_for_byte(server, other):
    raw = json.dumps({"model": "other", "seed": 1e3, "messages": [{"role": "tool"}]}, indent=3)
    httpx.post(f"{server.url}/v1/chat/completions", content=raw)
    assert other.requests[0][3] == raw.encode()


def test_the_field_alignpro_is_for_this_server(client, other):
    client.chat.completions.create(
        model="other", messages=ASK, extra_body={"alignpro": {"rewrite": "What is blue?"}}
    )
    sent = json.loads(other.requests[0][3])
    assert sent["messages"][0]["content"] == "What is blue?"
    assert "alignpro" not in sent
    with pytest.raises(openai.BadRequestError, match="near: samples"):
        client.chat.completions.create(
            model="other", messages=ASK, extra_body={"alignpro": {"samplse": 2}}
        )
    assert len(other.requests) == 1


@pytest.mark.parametrize(
    ("fields", "rewritten"),
    [
        ({}, True),
        ({"response_format": {"type": "text"}}, True),
        ({"response_format": {"type": "json_object"}}, False),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, False),
        ({"tools": [], "alignpro": {"mode": "off"}}, False),
        ({"response_format": {"type": "json_object"}, "alignpro": {"mode": "on"}}, True),
    ],
)
def test_an_answer_with_a_form_is_not_spoiled(client, other, fields, rewritten):
    client.chat.completions.create(model="other", messages=ASK, extra_body={"seed": 7, **fields})
    sent = json.loads(other.requests[0][3])
    assert sent["messages"][0]["content"] == (REWRITE if rewritten else PROMPT)


def test_images_stay_where_they_are(client, other):
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    content = [image, {"type": "text", "text": PROMPT}]
    client.chat.completions.create(
        model="other", messages=[{"role": "user", "content": content}], seed=7
    )
    sent = json.loads(other.requests[0][3])["messages"][0]["content"]
    assert sent[0] == image
    assert sent[1]["text"] == REWRITE


def test_pieces_arrive_as_they_come(client, other):
    stream = client.chat.completions.create(model="other", messages=ASK, stream=True)
    first = next(stream)
    assert first.choices[0].delta.content == "It "
    other.proceed.set()
    assert [chunk.choices[0].delta.content for chunk in stream] == ["is ", "blue."]


def test_a_client_that_hangs_up_hangs_up_there(client, other):
    stream = client.chat.completions.create(model="other", messages=ASK, stream=True)
    next(stream)
    stream.close()
    assert other.gone.wait(30), "the other server went on"


def test_errors_pass_through(client):
    with pytest.raises(openai.APIStatusError, match="teapot") as caught:
        client.chat.completions.create(model="broken", messages=ASK)
    assert caught.value.status_code == 418
    assert caught.value.code == "c"


def test_other_routes_pass_through(client, other):
    assert client.models.list().data == []
    client.with_options(default_query={"a": "b c"}).post("/embeddings", body={}, cast_to=object)
    assert [request[:2] for request in other.requests] == [
        ("GET", "/v1/models"),
        ("POST", "/v1/embeddings?a=b+c"),
    ]


def asked(port, target, *headers):
    """The answer to a request that is sent byte by byte as it is, and ends the connection."""
    told = [b"GET " + target + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close", *headers]
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"\r\n".join([*told, b"", b""]))
        with connection.makefile("rb") as answer:
            return answer.read()


def test_headers_are_the_clients_own(server, other):
    """The library's were added, so that an answer came compressed to who cannot read that."""
    asked(server.port, b"/v1/models", b"X-Name: Zo\xc3\xab")
    (_, _, headers, _) = other.requests[-1]
    assert {name.lower() for name in headers} == {"host", "x-name"}
    assert headers["x-name"].encode("latin-1") == "Zoë".encode()


@contextmanager
def answering(reply):
    """Another server that says the same to everybody, byte for byte, and what it was sent."""
    heads = []

    def work():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as request:
                heads.append([*iter(lambda: request.readline().strip(), b"")])
                connection.sendall(reply)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=work)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", heads
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_cookies_belong_to_who_was_given_them(serve):
    """The cookie of one client was sent with the requests of all others."""
    reply = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=secret\r\nContent-Length: 2\r\n\r\n{}"
    with answering(reply) as (url, heads), serve(Elsewhere(url, None, True)) as running:
        given = httpx.get(f"{running.url}/v1/models").headers["set-cookie"]
        assert given == "session=secret"
        httpx.get(f"{running.url}/v1/models")
        assert not any(line.lower().startswith(b"cookie") for line in heads[1])
        httpx.get(f"{running.url}/v1/models", headers={"Cookie": "mine=1"})
        assert b"cookie: mine=1" in heads[2]


def test_headers_of_an_answer_pass_through_byte_for_byte(serve):
    """One in UTF-8 was a 500 of plain text."""
    reply = b"HTTP/1.1 200 OK\r\nX-Price: \xe2\x82\xac 5\r\nContent-Length: 2\r\n\r\n{}"
    with answering(reply) as (url, _), serve(Elsewhere(url, None, True)) as running:
        found = asked(running.port, b"/v1/models")
    assert found.startswith(b"HTTP/1.1 200")
    assert b"x-price: \xe2\x82\xac 5\r\n" in found


@pytest.mark.parametrize(
    "target", [b"/v1/../admin", b"/v1/%2e%2e/admin", b"/v1/a/..%2f..\\admin", b"/%76%31/models"]
)
def test_no_path_leads_out_of_the_other_servers_address(server, other, target):
    """`..` led to any route of the other server, with its key."""
    assert asked(server.port, target).startswith(b"HTTP/1.1 404")
    assert not other.requests


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 9", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"],
)
def test_an_answer_that_breaks_off_is_cut(serve, caplog, head):
    """It counted as a success, and its end as a fault of this server."""
    reply = head + b"\r\n\r\n2\r\n{}\r\n"
    with answering(reply) as (url, _), serve(Elsewhere(url, None, True)) as running:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{running.url}/v1/models")
        assert 'status="502"' in httpx.get(f"{running.url}/metrics").text
    assert not caplog.records


def test_a_status_that_http_does_not_know_is_told(serve):
    """The connection was closed without a word."""
    reply = b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"
    with answering(reply) as (url, _), serve(Elsewhere(url, None, True)) as running:
        answer = httpx.get(f"{running.url}/v1/models")
    assert answer.status_code == 502
    assert "999" in answer.json()["error"]["message"]


@pytest.mark.parametrize("content", [5, True, {"a": 1}, [{"type": "text", "text": PROMPT}, "x"]])
def test_a_message_of_an_unknown_form_is_the_other_servers_to_judge(server, other, content):
    """It was a 500 of this server."""
    ask = {"model": "m", "messages": [{"role": "user", "content": content}]}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=ask).json() == COMPLETION
    sent = json.loads(other.requests[-1][3])["messages"][0]["content"]
    assert type(sent) is type(content)


TOLD_BY_A_TOOL = [*ASK, {"role": "tool", "tool_call_id": "1", "content": "rain"}]
IN_TWO_PARTS = [
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
]


@pytest.mark.parametrize("messages", [TOLD_BY_A_TOOL, IN_TWO_PARTS])
def test_the_field_alignpro_stays_here_where_nothing_is_rewritten(client, other, messages):
    """Regression: an agent that always sends it failed at its first result of a tool."""
    client.chat.completions.create(
        model="other", messages=messages, extra_body={"alignpro": {"mode": "auto"}}
    )
    sent = json.loads(other.requests[-1][3])
    assert "alignpro" not in sent
    assert sent["messages"] == messages


def test_a_rewrite_where_there_is_none_is_refused(client, other):
    with pytest.raises(openai.BadRequestError, match="ask /v1/chat/completions"):
        client.completions.create(
            model="other", prompt="Say hi.", extra_body={"alignpro": {"mode": "on"}}
        )
    client.completions.create(model="other", prompt='What is "alignpro"?')
    assert json.loads(other.requests[-1][3])["prompt"] == 'What is "alignpro"?'


@pytest.mark.parametrize("align", [0, [], "", False])
def test_a_field_alignpro_that_is_no_table_is_refused(server, other, align):
    """Values that are false in Python counted as none."""
    ask = {"model": "m", "messages": ASK, "alignpro": align}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=ask).status_code == 400
    assert not other.requests


def test_a_server_that_is_not_there(serve):
    with serve(Elsewhere("http://127.0.0.1:1/v1", None, True)) as server:
        answer = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": ASK})
        assert answer.status_code == 502
        assert "http://127.0.0.1:1/v1 cannot be reached" in answer.json()["error"]["message"]
        assert httpx.get(f"{server.url}/health").json()["upstream"] == "http://127.0.0.1:1/v1"


def test_the_key_of_this_server_stays_here(serve, other):
    ours = {"Authorization": "Bearer ours"}
    rules = Rules(key="ours")
    for authorization in (None, "Bearer theirs"):
        with serve(Elsewhere(other.url, authorization, False), rules) as server:
            answer = httpx.get(f"{server.url}/v1/models", headers=ours)
            assert answer.status_code == 200
    sent = [request[2].get("authorization") for request in other.requests]
    assert sent == [None, "Bearer theirs"]


def test_a_rewrite_alone(server, other):
    told = httpx.post(f"{server.url}/v1/alignpro/rewrite", json={"messages": ASK, "seed": 7}).json()
    assert told["prompt"] == PROMPT
    assert told["sent"] == REWRITE
    assert other.requests == []


def test_temperature_0_repeats_the_rewrite_too(server):
    """Holds down: only a server with a target of its own did."""

    def seed(**fields):
        body = {"messages": ASK, **fields}
        return httpx.post(f"{server.url}/v1/alignpro/rewrite", json=body).json()["seed"]

    assert seed(temperature=0) == seed(temperature=0.0)
    assert len({seed(), seed(), seed(temperature=0.7), seed(temperature=0)}) == 4
    assert seed(temperature=0, seed=5) == 5


def test_a_seed_of_the_server_holds_for_every_request(tiny_model, other):
    """Holds down: `serve --upstream --seed` was taken and had no effect."""
    rewriter = Rewriter(tiny_model.prompter, Usual(Request().with_seed(9), repeats=True), 1)
    app = upstream_app(Elsewhere(other.url, None, True), rewriter, Limits(), Rules())
    with served(app) as server:
        told = httpx.post(f"{server.url}/v1/alignpro/rewrite", json={"messages": ASK}).json()
    assert told["seed"] == 9


def test_a_prompt_too_long_for_the_prompter_goes_out_as_it_is(tiny_model, other):
    long = "word " * 20000
    app = upstream_app(
        Elsewhere(other.url, None, True),
        Rewriter(tiny_model.prompter, Usual(Request()), 1),
        Limits(),
        Rules(),
    )
    with served(app) as server:
        ask = {"messages": [{"role": "user", "content": long}]}
        httpx.post(f"{server.url}/v1/chat/completions", json=ask)
    assert json.loads(other.requests[0][3])["messages"][0]["content"] == long


def test_the_prompter_sees_the_conversation(other):
    prompter: Any = FakePrompter([REWRITE])
    messages = [
        {"role": "user", "content": "Name two rivers."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "assistant", "content": "The Rhine and the Po."},
        *ASK,
    ]
    elsewhere = Elsewhere(other.url, None, True)
    app = upstream_app(elsewhere, Rewriter(prompter, Usual(Request()), 1), Limits(), Rules())
    with served(app) as server:
        httpx.post(f"{server.url}/v1/chat/completions", json={"messages": messages})
    shown = [message.content for message in prompter.shown[0]]
    assert shown == ["Name two rivers.", "The Rhine and the Po."]
    assert json.loads(other.requests[0][3])["messages"][:-1] == messages[:-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--temperature", "1"), "--temperature is for a target"),
        (("--repeat-penalty", "1.1"), "--repeat-penalty is for a target"),
        (("--reward", "default"), "--reward is for a target"),
    ],
)
def test_options_of_a_target_are_refused(options, said):
    done = CliRunner().invoke(
        cli, ["serve", "--port", "0", "--upstream", "http://127.0.0.1:1/v1", *options]
    )
    assert done.exit_code == 2
    assert said in done.output


def test_what_the_server_protects_is_kept_before_another_server_too(other):
    """Holds down: `serve --upstream --protect` was taken and had no effect."""
    prompter: Any = FakePrompter(["Say more about it."])
    usual = Usual(Request(protect=("the sky",)))
    elsewhere = Elsewhere(other.url, None, True)
    app = upstream_app(elsewhere, Rewriter(prompter, usual, 1), Limits(), Rules())
    with served(app) as server:
        told = httpx.post(f"{server.url}/v1/alignpro/rewrite", json={"messages": ASK}).json()
    assert told["sent"] == told["prompt"]
    assert "the sky" in told["reason"] or "protected" in told["reason"]
