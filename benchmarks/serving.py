"""What a server costs over the library, and whether clients that hang up leave anything behind.

    python benchmarks/serving.py [--requests 1000] [--clients 8] [--tokens 24]
        [--target TARGET] [--prompter PROMPTER]

- Overhead: the same greedy request of the library and over HTTP, in turns; the bars are 2 ms a
  request and 50 µs a token. A request of one token gives the first, a long one the second. The
  client is a bare socket: to read a token, httpx takes as long as the server to send it.
- Together: tokens per second of 1 and of 8 streams; the bar is twice as many.
- Hang-ups: requests of which two thirds leave, before the first byte, in the middle of a stream, or
  at once. Afterwards nothing may run or wait, else the exit status is 1; memory is fitted over the
  second half.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from alignpro_lite import AlignedModel, DeviceRequest, Request, Sampling
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.app import model_app
from alignpro_lite.serve.asked import Usual
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules
from alignpro_lite.serve.lifetime import Lifetime
from alignpro_lite.serve.listening import Address, bound, listen

PROMPT = "Say something about the sky."
GREEDY = Sampling(temperature=0)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
"""How a chunked answer ends."""


@contextmanager
def serving(model: AlignedModel, limits: Limits) -> Iterator[str]:
    """The address of a server with the model, on a thread."""
    app = model_app(
        model, ServedModel("model", (), Usual(Request(sampling=GREEDY))), limits, Rules()
    )
    lifetime, ready = Lifetime(), threading.Event()
    with bound(Address()) as listener:
        work = threading.Thread(target=listen, args=(app, listener, lifetime, ready.set))
        work.start()
        ready.wait()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            lifetime.stop(1)
            work.join()


def body(tokens: int, *, stream: bool) -> dict[str, Any]:
    """A greedy request whose prompt stays as it is."""
    return {
        "model": "model",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": stream,
        "alignpro": {"mode": "off"},
    }


def overhead(model: AlignedModel, url: str, tokens: int, rounds: int) -> None:
    """Time the library and the server in turns."""
    place = urlsplit(url)
    connection = socket.create_connection((place.hostname, place.port))

    def by_library(count: int) -> float:
        begun = time.perf_counter()
        model.run(PROMPT, Request(max_tokens=count, sampling=GREEDY, rewrite="off"))
        return time.perf_counter() - begun

    def by_server(count: int) -> float:
        begun = time.perf_counter()
        connection.sendall(posted(json.dumps(body(count, stream=True)).encode()))
        end = b""
        while not end.endswith(_LAST_CHUNK):
            end = end[-len(_LAST_CHUNK) :] + connection.recv(1 << 16)
        return time.perf_counter() - begun

    by_library(tokens), by_server(tokens)  # warms up
    short = [by_server(1) - by_library(1) for _ in range(rounds)]
    long = [by_server(tokens) - by_library(tokens) for _ in range(rounds)]
    request, whole = statistics.median(short), statistics.median(long)
    each = (whole - request) / max(1, tokens - 1)
    print(f"overhead  {request * 1000:.1f} ms a request, {each * 1e6:.0f} µs a token")
    connection.close()


def posted(content: bytes) -> bytes:
    """A request for a chat completion, as it goes over the wire."""
    head = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: 127.0.0.1",
        f"Content-Length: {len(content)}",
    )
    return "\r\n".join([*head, "", ""]).encode() + content


def together(url: str, tokens: int) -> None:
    """Tokens per second of one stream, and of eight."""

    def speed(clients: int) -> float:
        begun = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            asked = [
                pool.submit(
                    httpx.post,
                    f"{url}/v1/chat/completions",
                    json=body(tokens, stream=False),
                    timeout=None,
                )
                for _ in range(clients)
            ]
            replies = [answer.result().json() for answer in asked]
        written = sum(int(reply["usage"]["completion_tokens"]) for reply in replies)
        return written / (time.perf_counter() - begun)

    speed(1)  # warms up
    alone, eight = speed(1), speed(8)
    print(
        f"together  {alone:.0f} tok/s alone, {eight:.0f} with 8 streams: {eight / alone:.1f} times"
    )


def resident_mebibytes() -> float:
    """Memory of this process that is in RAM (Linux)."""
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[1])
    return pages * 4096 / (1 << 20)


def ask_or_leave(http: httpx.Client, tokens: int, seed: int) -> None:
    """One request whose client may hang up at any time."""
    chance = random.Random(seed)
    patience = chance.choice([None, 0.001, 0.02, 0.1])
    lines = chance.choice([1, 3, 1000])
    timeout = httpx.Timeout(120, read=patience or 120)
    ask = body(tokens, stream=chance.random() < 0.7)
    with (
        suppress(httpx.TimeoutException),
        http.stream("POST", "/v1/chat/completions", json=ask, timeout=timeout) as answer,
    ):
        for number, _ in enumerate(answer.iter_lines()):
            if number >= lines:
                break


def hang_ups(url: str, requests: int, clients: int, tokens: int) -> bool:
    """Ask with clients that leave, and look at what is left; whether nothing runs or waits."""
    memory: list[float] = []
    with httpx.Client(base_url=url) as http, ThreadPoolExecutor(clients) as pool:
        for start in range(0, requests, clients * 4):
            seeds = range(start, min(requests, start + clients * 4))
            list(pool.map(lambda seed: ask_or_leave(http, tokens, seed), seeds))
            memory.append(resident_mebibytes())
    end = time.monotonic() + 5
    while time.monotonic() < end and not is_idle(url):
        time.sleep(0.05)
    half = memory[len(memory) // 2 :]
    slope = float(np.polyfit(range(len(half)), half, 1)[0]) if len(half) > 1 else 0.0
    each = slope / (clients * 4) * 1024
    idle = is_idle(url)
    left = "nothing runs or waits" if idle else "something still runs or waits"
    threads = sum(thread.name.startswith("answer") for thread in threading.enumerate())
    print(
        f"hang-ups  {requests} requests: {left}; {memory[0]:.0f} to {memory[-1]:.0f} MiB, "
        f"{each:+.2f} KiB a request in the second half; {threads} threads of the pool"
    )
    return idle


def is_idle(url: str) -> bool:
    """Whether the server has nothing to do."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return {"alignpro_requests_running 0", "alignpro_requests_waiting 0"} <= set(lines)


def main() -> int:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--target", default="smollm2-135m-instruct")
    parser.add_argument("--prompter", default=None)
    settings = parser.parse_args()
    limits = Limits(parallel=8, queue=1000)
    devices = DeviceRequest("cpu", conversations=limits.parallel)
    with (
        AlignedModel.load(settings.target, settings.prompter, devices=devices) as model,
        serving(model, limits) as url,
    ):
        overhead(model, url, settings.tokens, settings.rounds)
        together(url, settings.tokens)
        idle = hang_ups(url, settings.requests, settings.clients, settings.tokens)
    return 0 if idle else 1


if __name__ == "__main__":
    sys.exit(main())
