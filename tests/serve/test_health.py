"""GET /health: whether the engines behind a server still decode."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from alignpro_lite import AlignedModel, DeviceRequest, Request
from alignpro_lite.errors import DeviceError
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.app import model_app, upstream_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules
from alignpro_lite.serve.upstream import Elsewhere, Rewriter
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.scripted_models import FakePrompter
from tests.support.served import served

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}


@pytest.fixture
def model():
    """A pair whose engines a test may end."""
    with AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=DeviceRequest("cpu")) as loaded:
        yield loaded


@pytest.mark.parametrize("place", ["target", "prompter"])
def test_an_engine_that_has_died_is_told(model, monkeypatch, place):
    """Holds down: /health said ok while every request failed."""
    engine = model.target.engine if place == "target" else model.prompter._engine

    def fail(*arguments):
        raise ValueError("odd")

    app = model_app(model, ServedModel("tiny", (), Usual(Request())), Limits(), Rules())
    with served(app) as server:
        well = httpx.get(f"{server.url}/health")
        assert (well.status_code, well.json()["status"]) == (200, "ok")
        monkeypatch.setattr(engine._stepper, "prefill", fail)
        assert httpx.post(f"{server.url}/v1/chat/completions", json=ASK).status_code == 500
        ill = httpx.get(f"{server.url}/health")
    assert ill.status_code == 503
    told = ill.json()
    assert told["status"] == "failed"
    assert told["model"] == "tiny"
    assert f"The {place} failed (ValueError: odd)." in told["error"]["message"]


def test_a_prompter_in_front_of_another_server_is_told_of_too():
    prompter: Any = FakePrompter([])
    app = upstream_app(
        Elsewhere("http://127.0.0.1:1/v1", None, True),
        Rewriter(prompter, Usual(Request()), 1),
        Limits(),
        Rules(),
    )
    with served(app) as server:
        assert httpx.get(f"{server.url}/health").status_code == 200
        prompter.failure = DeviceError("The prompter broke.", "Mend it.")
        ill = httpx.get(f"{server.url}/health")
    assert ill.status_code == 503
    assert ill.json()["error"]["message"] == "The prompter broke. Mend it."
