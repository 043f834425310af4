"""What travels to the engine process and back arrives as it was."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest

from alignpro_lite import ANY_JSON_OBJECT, Gbnf, JsonSchema, Penalties, Request, Text, TokenLogProb
from alignpro_lite.wire import (
    Frame,
    FrameWriter,
    PromptOrder,
    order_body,
    pack_order,
    pack_reply,
    read_frame,
    unpack_order,
    unpack_reply,
)

TOKEN = TokenLogProb(7, b"\xc3", -0.5, (TokenLogProb(8, b"a", -1.5),))


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request(constraint=Gbnf('root ::= "a"')),
        Request(constraint=ANY_JSON_OBJECT, log_probs=3),
        Request(constraint=JsonSchema({"minimum": 1.5})),
        Request(penalties=Penalties(1, bias=((5, -100.0),))),
    ],
)
def test_an_order_arrives_as_it_was_sent(request_):
    """Holds down: a request whose constraint may be one of two dataclasses could not be read."""
    frame = Frame(1, "stream", PromptOrder("x", request_))
    pipe = io.BytesIO()
    FrameWriter(pipe, pack_order).send(frame)
    pipe.seek(0)
    raw = read_frame(pipe)
    assert raw is not None
    arrived = unpack_order(raw)
    assert replace(arrived, body=order_body(arrived)) == frame


def test_a_reply_arrives_as_it_was_sent_and_a_half_one_does_not():
    frame = Frame(6, "Text", Text("é", (TOKEN,)))
    pipe = io.BytesIO()
    FrameWriter(pipe, pack_reply).send(frame)
    whole = pipe.getvalue()
    raw = read_frame(io.BytesIO(whole))
    assert raw is not None
    assert unpack_reply(raw) == frame
    assert read_frame(io.BytesIO(whole[:-1])) is None


def test_what_the_garbage_collector_sends_within_a_send_is_sent():
    """A stream that was dropped while its thread was writing a frame locked up all calls."""
    pipe = io.BytesIO()
    end = Frame(2, "end", None)

    class Collecting(io.RawIOBase):
        def write(self, raw):
            if not pipe.getvalue():
                pipe.write(raw)
                writer.send(end)
            else:
                pipe.write(raw)

    writer = FrameWriter(cast(Any, Collecting()), pack_order)
    writer.send(Frame(1, "go", None))
    pipe.seek(0)
    read = [unpack_order(read_frame(pipe) or b"") for _ in range(2)]
    assert [(frame.call, frame.kind) for frame in read] == [(1, "go"), (2, "end")]
    assert read_frame(pipe) is None


def test_frames_of_many_threads_all_arrive_whole():
    pipe = io.BytesIO()
    writer = FrameWriter(pipe, pack_order)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: writer.send(Frame(number, "go", None)), range(2000)))
    pipe.seek(0)
    read = [unpack_order(read_frame(pipe) or b"").call for _ in range(2000)]
    assert sorted(read) == list(range(2000))
