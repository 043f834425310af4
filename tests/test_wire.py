"""What travels to the engine process and back arrives as it was."""

from __future__ import annotations

import io
from dataclasses import replace

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
