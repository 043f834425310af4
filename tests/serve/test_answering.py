"""How the events of answers come from their threads to the loop, and from there to a client."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pytest

from alignpro_lite import Request
from alignpro_lite.errors import DeviceError
from alignpro_lite.events import Done, Reasoning, Rewritten, Text
from alignpro_lite.rewriting.draw import unchanged
from alignpro_lite.rewriting.result import Result, Timings
from alignpro_lite.serve.admission import Limits
from alignpro_lite.serve.answering import Answerer
from alignpro_lite.serve.app import model_app
from alignpro_lite.serve.asked import Usual, asked_in_chat
from alignpro_lite.serve.body import ChatBody, read_request
from alignpro_lite.serve.completions import ServedModel
from alignpro_lite.serve.guarding import Rules

CHOICE = unchanged("hi", "cancelled")


@dataclass
class ScriptedModel:
    """Says a word, waits until it may go on, and says the others; then it ends or fails."""

    words: list[str]
    failure: DeviceError | None = None
    may_go_on: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)
    target = prompter = plan = reward = None

    def stream(self, prompt: str, request: Request) -> ScriptedModel:
        return self

    def events(self):
        yield Rewritten(CHOICE)
        yield Text(self.words[0])
        self.may_go_on.wait(10)
        yield Reasoning("hm")
        for word in self.words[1:]:
            yield Text(word)
        if self.failure is None:
            yield Done(
                Result(
                    choice=CHOICE,
                    answer="".join(self.words),
                    reasoning="",
                    thought_only=False,
                    finish_reason="stop",
                    answer_tokens=len(self.words),
                    prompt_tokens=1,
                    timings=Timings(0, 0, 0),
                )
            )
        self.is_over.set()
        if self.failure is not None:
            raise self.failure

    def use(self, text: str) -> None:
        """Begin as the first answer does: with the prompt that it has."""

    def cancel(self) -> None:
        self.may_go_on.set()


def asked_body(more: dict[str, Any]) -> bytes:
    turn = {"role": "user", "content": "hi"}
    return json.dumps({"model": "m", "messages": [turn], **more}).encode()


async def read(model: Any, more: dict[str, Any], found: list[list[Any]]) -> None:
    """Collect the events as they are handed on, when all but the first word have waited."""
    answerer = Answerer(model, 1)
    asked = asked_in_chat(read_request(ChatBody, asked_body(more)), Request())
    try:
        async with aclosing(answerer.answer(asked)) as happenings:
            async for several in happenings:
                found.append([happening.event for happening in several])
                model.may_go_on.set()
                await asyncio.to_thread(model.is_over.wait, 10)
    finally:
        answerer.close()


def texts(found: list[list[Any]]) -> list[str]:
    return [event.text for event in chain.from_iterable(found) if isinstance(event, Text)]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, [Done]),
        ({"n": 2}, [Rewritten, Done, Done]),
        ({"stream": True}, [Text, Reasoning, Text, Done]),
        (
            {"stream": True, "alignpro": {"progress": True}},
            [Rewritten, Text, Reasoning, Text, Done],
        ),
    ],
)
def test_what_nobody_is_told_stays_on_its_thread(more, told):
    """Each text woke the loop, for nothing: 8 answers at once were less than twice as fast."""
    model = ScriptedModel(["a", "b"])
    model.may_go_on.set()
    found: list[list[Any]] = []
    asyncio.run(read(model, more, found))
    assert [type(event) for event in chain.from_iterable(found)] == told


def test_what_waits_is_handed_on_together_but_not_without_end():
    words = [f"{number} " for number in range(200)]
    found: list[list[Any]] = []
    asyncio.run(read(ScriptedModel(words), {"stream": True}, found))
    assert texts(found) == words
    assert max(map(len, found)) == 64


def test_what_came_before_a_failure_is_told():
    model = ScriptedModel(["a", "b", "c"], DeviceError("It failed.", "Try again."))
    found: list[list[Any]] = []
    with pytest.raises(DeviceError, match="It failed"):
        asyncio.run(read(model, {"stream": True}, found))
    assert texts(found) == ["a", "b", "c"]


def test_what_waits_goes_out_in_one_write():
    """Every token was a write of its own, and so were `[DONE]` and the end of the body."""
    model: Any = ScriptedModel(["a", "b", "c"])
    app = model_app(model, ServedModel("m", (), Usual(Request())), Limits(), Rules())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        model.may_go_on.set()
        await asyncio.to_thread(model.is_over.wait, 10)

    asyncio.run(posted(app, send))
    start, *pieces = sent
    assert start["status"] == 200
    assert [piece["more_body"] for piece in pieces] == [True, False]
    first, rest = (piece["body"].decode() for piece in pieces)
    assert [content(line) for line in first.split("\n\n")[:-1]] == ["", "a"]
    assert [content(line) for line in rest.split("\n\n")[:-2]] == [None, "b", "c", None]
    assert rest.endswith("data: [DONE]\n\n")


async def posted(app: Any, send: Any) -> None:
    """Ask an application for a stream."""
    asked = asyncio.Queue[Any]()
    asked.put_nowait({"type": "http.request", "body": asked_body({"stream": True})})
    headers = [
        (b"host", b"localhost"),
        (b"content-length", b"%d" % len(asked_body({"stream": True}))),
    ]
    path = "/v1/chat/completions"
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    await app({**scope, "root_path": "", "query_string": b""}, asked.get, send)


def content(event: str) -> str | None:
    """The text of a chunk."""
    delta = json.loads(event.removeprefix("data: "))["choices"][0]["delta"]
    text: str | None = delta.get("content")
    return text
