"""What travels to the engine process and back arrives as it was."""

from __future__ import annotations

import io

import pytest

from alignpro_lite import ANY_JSON_OBJECT, Gbnf, JsonSchema, Penalties, Request, Text, TokenLogProb
from alignpro_lite.wire import Frame, FrameWriter, PromptOrder, read_frame

TOKEN = TokenLogProb(7, b"\xc3", -0.5, (TokenLogProb(8, b"a", -1.5),))


@pytest.mark.parametrize(
    "frame",
    [
        Frame(1, "stream", PromptOrder("x", Request())),
        Frame(2, "stream", PromptOrder("x", Request(constraint=Gbnf('root ::= "a"')))),
        Frame(3, "stream", PromptOrder("x", Request(constraint=ANY_JSON_OBJECT, log_probs=3))),
        Frame(4, "stream", PromptOrder("x", Request(constraint=JsonSchema({"minimum": 1.5})))),
        Frame(5, "stream", PromptOrder("x", Request(penalties=Penalties(1, bias=((5, -100.0),))))),
        Frame(6, "Text", Text("é", (TOKEN,))),
    ],
    ids=lambda frame: frame.call,
)
def test_a_frame_arrives_as_it_was_sent(frame):
    """Holds down: a request whose constraint may be one of two dataclasses could not be read."""
    pipe = io.BytesIO()
    FrameWriter(pipe).send(frame)
    pipe.seek(0)
    assert read_frame(pipe) == frame
