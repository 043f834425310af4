"""The queue, deadlines and hang-ups, and what the metrics say of them."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from alignpro_lite import Request
from alignpro_lite.serve.admission import Admission, Limits
from alignpro_lite.serve.app import model_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules
from alignpro_lite.serve.metrics import ServerMetrics
from alignpro_lite.serve.problems import HttpProblem
from tests.support.served import served

LONG: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 1500,
    # No stop token, so that it ends when it is told to.
    "alignpro": {"mode": "off"},
}


@pytest.fixture
def serve(tiny_model, monkeypatch):
    """Serves answers that do not end by themselves."""
    model = tiny_model.target._model
    monkeypatch.setattr(model, "is_stop", lambda token: False)

    def open_with(limits):
        return served(
            model_app(tiny_model, ServedModel("tiny", (), Usual(Request())), limits, Rules())
        )

    return open_with


def is_idle(model) -> bool:
    engine = model.target.engine
    return not engine._live and not engine._pending_jobs()


def wait_until(holds, seconds=10.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_more_than_the_queue_holds_are_told_to_come_back(serve):
    with (
        serve(Limits(parallel=1, queue=1)) as server,
        httpx.Client(timeout=30) as http,
        ThreadPoolExecutor(1) as pool,
    ):
        url = f"{server.url}/v1/chat/completions"
        with http.stream("POST", url, json={**LONG, "stream": True}) as first:
            assert first.status_code == 200
            second = pool.submit(httpx.post, url, json={**LONG, "max_tokens": 2}, timeout=60)
            wait_until(lambda: running(http, server) == (1, 1))
            refused = http.post(url, json=LONG)
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) >= 1
            assert refused.json()["error"]["code"] == "server_busy"
        assert second.result().status_code == 200
        assert 'status="429"} 1' in http.get(f"{server.url}/metrics").text


def running(http, server):
    lines = http.get(f"{server.url}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return int(values["alignpro_requests_running"]), int(values["alignpro_requests_waiting"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_frees_its_sequence(serve, tiny_model, stream):
    with serve(Limits(parallel=2)) as server, httpx.Client(timeout=30) as http:
        ask = {**LONG, "stream": stream}
        client = httpx.Client(timeout=30)
        started = threading.Event()

        def read():
            try:
                with client.stream("POST", f"{server.url}/v1/chat/completions", json=ask) as got:
                    for _ in got.iter_lines():
                        started.set()
            except httpx.HTTPError:
                pass

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: bool(tiny_model.target.engine._live))
        assert not stream or started.wait(10)
        begun = time.monotonic()
        hang_up(client)
        wait_until(lambda: is_idle(tiny_model))
        assert time.monotonic() - begun < 2
        reader.join(10)
        wait_until(lambda: 'status="499"} 1' in http.get(f"{server.url}/metrics").text)
        assert running(http, server) == (0, 0)


def hang_up(client: Any) -> None:
    """Close the sockets under a request that another thread waits for."""
    for connection in client._transport._pool.connections:
        stream = connection._connection._network_stream
        stream.get_extra_info("socket").shutdown(2)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long_fails(serve, tiny_model, stream):
    with serve(Limits(seconds=0.5)) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.APIError, match=r"took longer than 0\.5 s") as caught:
            list(client.chat.completions.create(stream=stream, extra_body=LONG, **ASK))
        assert caught.value.code == "timeout"
        wait_until(lambda: is_idle(tiny_model))


ASK: dict[str, Any] = {"model": "tiny", "messages": LONG["messages"]}


def test_conversations_decode_together(serve, tiny_model):
    short = {**LONG, "max_tokens": 200}
    with serve(Limits(parallel=4)) as server, ThreadPoolExecutor(4) as pool:
        url = f"{server.url}/v1/chat/completions"
        answers = [pool.submit(httpx.post, url, json=short, timeout=60) for _ in range(4)]
        wait_until(lambda: len(tiny_model.target.engine._live) == 4)
        assert [answer.result().status_code for answer in answers] == [200] * 4


def test_leaving_the_queue_gives_the_place_up():
    async def leave():
        admission = Admission(Limits(parallel=1, queue=1))
        async with admission.place():
            waiting = asyncio.create_task(enter(admission))
            await asyncio.sleep(0)
            assert (admission.running, admission.waiting) == (1, 1)
            with pytest.raises(HttpProblem) as caught:
                await enter(admission)
            assert caught.value.status == 429
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert admission.waiting == 0
        await enter(admission)
        assert admission.running == 0

    async def enter(admission):
        async with admission.place():
            pass

    asyncio.run(leave())


def test_metrics_are_in_the_form_of_prometheus():
    metrics = ServerMetrics(Admission(Limits()))
    metrics.finished("/v1/x", 200, 0.02)
    metrics.finished("/v1/x", 200, 5)
    metrics.read("completion", 7)
    metrics.chosen(changed=True)
    lines = metrics.text().splitlines()
    assert 'alignpro_requests_total{route="/v1/x",status="200"} 2' in lines
    assert 'alignpro_request_seconds_bucket{route="/v1/x",le="0.03"} 1' in lines
    assert 'alignpro_request_seconds_bucket{route="/v1/x",le="10"} 2' in lines
    assert 'alignpro_request_seconds_bucket{route="/v1/x",le="+Inf"} 2' in lines
    assert 'alignpro_request_seconds_count{route="/v1/x"} 2' in lines
    assert 'alignpro_tokens_total{kind="completion"} 7' in lines
    assert 'alignpro_prompts_total{rewritten="true"} 1' in lines
    assert sum(line.startswith("# TYPE") for line in lines) == 6
