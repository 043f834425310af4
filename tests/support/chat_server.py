"""A chat-completions server on 127.0.0.1 that behaves, and misbehaves, like a serving engine."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Chat:
    """How the server answers, and what it was asked."""

    url: str = ""
    most_choices: int = 100
    refuse_n: bool = False  # answer 400 to n above 1
    statuses: list[int] = field(default_factory=list)  # of the coming answers, then 200
    failing_prompts: dict[str, int] = field(default_factory=dict)  # prompt: status, for ever
    headers: dict[str, str] = field(default_factory=dict)  # of every error
    complaint: object = field(default_factory=lambda: {"error": {"message": "not now"}})
    raw: bytes | None = None  # the body of every answer
    drops: int = 0  # connections to end without a word
    delay: float = 0.0
    bodies: list[dict] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are part of the tests; the standard one prints a traceback."""


@contextmanager
def serve() -> Iterator[Chat]:
    """Serve until the block ends."""
    chat = Chat()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with chat.lock:
                chat.busy += 1
                chat.most_busy = max(chat.busy, chat.most_busy)
            answer(self, chat)

        def log_message(self, *args: object) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    chat.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield chat
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, chat: Chat) -> None:
    body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
    with chat.lock:
        chat.bodies.append(body)
        chat.authorizations.append(handler.headers["Authorization"])
        dropped, chat.drops = chat.drops > 0, max(chat.drops - 1, 0)
        status = chat.statuses.pop(0) if chat.statuses else 200
    time.sleep(chat.delay)
    with chat.lock:
        chat.busy -= 1
    status = chat.failing_prompts.get(body["messages"][-1]["content"], status)
    if handler.path != "/v1/chat/completions":
        status = 404
    if chat.refuse_n and body["n"] > 1:
        status = 400
    if not dropped:
        send(handler, chat, status, body)


def send(handler: BaseHTTPRequestHandler, chat: Chat, status: int, body: dict) -> None:
    content = json.dumps(completion(chat, body) if status == 200 else chat.complaint).encode()
    content = content if chat.raw is None else chat.raw
    handler.send_response(status)
    for name, value in chat.headers.items() if status != 200 else ():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def completion(chat: Chat, body: dict) -> dict:
    """Choices that tell what they were drawn from."""
    prompt = body["messages"][-1]["content"]
    count = min(body["n"], chat.most_choices)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": f"{prompt} {body['seed']}+{index}"},
            "finish_reason": "stop",
        }
        for index in range(count)
    ]
    return {"choices": choices, "usage": {"completion_tokens": 7 * count}}
