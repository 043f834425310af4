"""The server as the child of an app: it says where it listens, and ends when the app does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import openai
import pytest

from tests.support import TINY_BUNDLE, TINY_TARGET

COMMAND = [
    *(sys.executable, "-m", "alignpro_lite", "serve", "--device", "cpu"),
    *("--target", str(TINY_TARGET), "--prompter", str(TINY_BUNDLE)),
]
# An app that starts the server, says who it is, and waits.
APP = """
import os, subprocess, sys
command = [str(os.getpid()) if word == "OWN" else word for word in sys.argv[1:]]
child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
print(child.pid, child.stdout.readline(), flush=True)
sys.stdin.read()
"""


@contextmanager
def started(*options, **settings):
    """The process of a server, and the line that it prints."""
    command = [*COMMAND, *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, **settings) as process:
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()


def is_running(pid: int) -> bool:
    """Whether a process has not ended; one whose parent has not asked for it has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_says_where_it_listens_and_ends_in_order_at_sigterm():
    with started("--port", "0") as (process, told):
        assert set(told) == {"url", "base_url", "token", "model", "pid"}
        assert told["pid"] == process.pid
        with openai.OpenAI(base_url=told["base_url"], api_key=told["token"]) as client:
            assert client.models.list().data[0].id == told["model"] == "tiny"
        assert httpx.get(f"{told['base_url']}/models").status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stdout.read() == "", "nothing but the one line"


def test_an_answer_under_way_is_finished_at_sigterm():
    with started("--port", "0") as (process, told):
        client = openai.OpenAI(base_url=told["base_url"], api_key=told["token"])
        stream = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=60,
            stream=True,
        )
        chunks = [next(stream)]
        process.send_signal(signal.SIGTERM)
        chunks += stream
        assert chunks[-1].choices[0].finish_reason
        assert process.wait(10) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("follow", ["--parent-pid", "--until-stdin-closes"])
def test_it_ends_within_two_seconds_of_an_app_that_is_killed(follow):
    options = ["--port", "0", follow, *(["OWN"] if follow == "--parent-pid" else [])]
    with subprocess.Popen(
        [sys.executable, "-c", APP, *COMMAND, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as app:
        pid, line = app.stdout.readline().split(" ", 1)
        assert json.loads(line)["url"]
        app.kill()
        begun = time.monotonic()
        while is_running(int(pid)):
            assert time.monotonic() - begun < 2
            time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_it_ends_while_models_load_and_while_it_answers():
    """The end of the app is noticed at any time, also in the middle of native code."""
    with subprocess.Popen(["sleep", "60"]) as app:
        process = subprocess.Popen([*COMMAND, "--port", "0", "--parent-pid", str(app.pid)])
        app.kill()
        app.wait()
        assert process.wait(5) == 0


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no Unix sockets")
def test_a_unix_socket(tmp_path):
    path = tmp_path / "server.sock"
    with started("--unix-socket", str(path)) as (process, told):
        assert told["unix_socket"] == str(path)
        assert told["token"] is None
        assert path.stat().st_mode & 0o777 == 0o600
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url=told["url"]) as client:
            assert client.get("/v1/models").json()["data"]
        second = subprocess.run(
            [*COMMAND, "--unix-socket", str(path)], capture_output=True, text=True, timeout=60
        )
        assert second.returncode == 1
        assert "listens" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not path.exists()


def test_a_taken_port_is_found_before_the_models_are_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND[:-4], "--target", "nowhere.gguf", "--port", port],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr


@pytest.mark.parametrize(
    ("options", "key", "said"),
    [
        (("--host", "0.0.0.0"), None, "needs a key"),
        (("--host", "0.0.0.0"), "short", "16 characters"),
        (("--host", "nowhere.invalid"), "0123456789abcdef", "cannot have nowhere.invalid"),
    ],
)
def test_what_is_unsafe_is_refused(options, key, said):
    environment = os.environ | ({"ALIGNPRO_LITE_API_KEY": key} if key else {})
    done = subprocess.run(
        [*COMMAND, *options], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert (key or "none") not in done.stderr


def test_another_address_with_a_key(tmp_path):
    (tmp_path / "key").write_text("0123456789abcdef\n")
    options = ("--host", "0.0.0.0", "--port", "0", "--api-key-file", str(tmp_path / "key"))
    with started(*options) as (_, told):
        assert told["token"] is None, "the app knows it"
        url = told["url"].replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/v1/models").status_code == 401
        told = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer 0123456789abcdef"})
        assert told.status_code == 200
