"""Whom the server answers: keys, Host, Origin, and sizes."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from alignpro_lite import Request
from alignpro_lite.cli.serve import SafetyOptions
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.app import model_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules
from alignpro_lite.serve.listening import Address
from tests.support.served import served

LIMITS = Limits()
KEY = "sk-0123456789abcdef"
ASK: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 1,
}


@pytest.fixture(scope="module")
def open_to(tiny_model):
    """Serves with rules."""

    def serve(rules, limits=LIMITS):
        return served(
            model_app(tiny_model, ServedModel("tiny", (), Usual(Request())), limits, rules)
        )

    return serve


def test_a_key_is_needed_where_there_is_one(open_to):
    with open_to(Rules(key=KEY)) as server:
        ask = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        assert ask.models.list().data
        stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY + "x", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="Bearer KEY"):
            stranger.models.list()
        headers: list[Any] = [
            {},
            {"Authorization": KEY},
            {"Authorization": "Bearer ü".encode("latin-1")},
        ]
        for header in headers:
            assert httpx.get(f"{server.url}/metrics", headers=header).status_code == 401
        assert httpx.get(f"{server.url}/health").json()["status"] == "ok"
        assert httpx.get(f"{server.url}/").status_code == 200


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:9", True),
        ("localhost", True),
        ("LOCALHOST:1", True),
        ("[::1]:80", True),
        ("box.local", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("10.0.0.1", False),
        ("[::1", False),
    ],
)
def test_only_names_of_this_server_are_answered(open_to, host, allowed):
    """DNS rebinding: a page of another name that leads here could read the answers."""
    with open_to(Rules(hosts=frozenset({"box.local"}))) as server:
        answer = httpx.get(f"{server.url}/v1/models", headers={"Host": host})
    assert answer.status_code == (200 if allowed else 403)


@pytest.mark.parametrize("host", ["127.0.0.2", "LocalHost", "127.0.0.1"])
def test_the_address_that_a_server_announces_is_a_name_of_it(host):
    """Regression: `--host 127.0.0.2` printed an address at which every request got 403."""
    rules = SafetyOptions(None, (), (), 1, 1, 1.0, 1).rules(Address(host, 1, None), None)
    assert rules.knows_host(host.lower())
    assert not rules.knows_host("evil.example")


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("null", 403),
        ("http://127.0.0.1:1", 403),
        ("https://app.example", 200),
    ],
)
def test_pages_of_other_origins_are_refused(open_to, origin, status):
    with open_to(Rules(origins=frozenset({"https://app.example"}))) as server:
        url = f"{server.url}/v1/chat/completions"
        answer = httpx.post(url, json=ASK, headers={"Origin": origin})
        assert answer.status_code == status
        own = httpx.post(url, json=ASK, headers={"Origin": server.url})
        assert own.status_code == 200
    told = answer.headers.get("access-control-allow-origin")
    assert told == (origin if status == 200 else None)


def test_without_an_origin_there_is_no_cross_origin_sharing(open_to):
    with open_to(Rules()) as server:
        asked = httpx.options(
            f"{server.url}/v1/chat/completions",
            headers={"Origin": "https://a.example", "Access-Control-Request-Method": "POST"},
        )
    assert asked.status_code == 403
    assert "access-control-allow-origin" not in asked.headers


def test_bodies_are_limited(open_to):
    with open_to(Rules(), Limits(body_bytes=2000)) as server:
        url = f"{server.url}/v1/chat/completions"
        assert httpx.post(url, json=ASK).status_code == 200
        long = b'{"model": "' + b"x" * 4000 + b'"}'
        assert httpx.post(url, content=long).status_code == 413
        in_pieces = (piece for piece in (long[:1500], long[1500:]))
        assert httpx.post(url, content=in_pieces).status_code == 413


def test_headers_are_limited(open_to):
    """The connection is closed, perhaps before the answer is read."""
    with open_to(Rules()) as server:
        try:
            answer = httpx.get(f"{server.url}/health", headers={"X-Long": "x" * (1 << 17)})
        except httpx.TransportError:
            return
    assert answer.status_code == 400


def test_messages_are_counted(open_to):
    with open_to(Rules()) as server:
        many = ASK | {"messages": ASK["messages"] * 1001}
        answer = httpx.post(f"{server.url}/v1/chat/completions", json=many)
    assert answer.status_code == 400
    assert "messages" in answer.json()["error"]["message"]
