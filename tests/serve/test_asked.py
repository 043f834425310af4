"""From the body of a request to what it asks of the library."""

from __future__ import annotations

import msgspec
import pytest

from alignpro_lite import Request, RhoStar, Sampling
from alignpro_lite.decoding.penalties import Penalties
from alignpro_lite.serve.asked import asked_in_chat, asked_in_completion
from alignpro_lite.serve.body import ChatBody, CompletionBody

USUAL = Request(
    max_tokens=7,
    sampling=Sampling(temperature=0.3, top_p=0.7, top_k=5, min_p=0.1, seed=9),
    penalties=Penalties(presence=0.5, frequency=0.25, repeat=1.2),
    stop=("end",),
    rho_star=RhoStar(samples=3, strength=0.5),
)
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello."}]}
COMPLETION = {"model": "m", "prompt": "Hello."}


def in_chat(**fields: object) -> Request:
    return asked_in_chat(msgspec.convert(CHAT | fields, ChatBody), USUAL).request


def in_completion(**fields: object) -> Request:
    return asked_in_completion(msgspec.convert(COMPLETION | fields, CompletionBody), USUAL).request


@pytest.mark.parametrize("asked", [in_chat, in_completion])
def test_what_a_client_leaves_out_is_as_the_server_was_told(asked):
    """`serve --repeat-penalty` was taken and had no effect."""
    assert asked() == asked(presence_penalty=None, repeat_penalty=None) == USUAL


@pytest.mark.parametrize("asked", [in_chat, in_completion])
def test_what_a_client_says_goes_before(asked):
    said = asked(presence_penalty=0, repeat_penalty=1, logit_bias={"5": 2}, top_p=1, seed=0)
    assert said.penalties == Penalties(0, 0.25, 1, ((5, 2),))
    assert said.sampling == Sampling(temperature=0.3, top_p=1, top_k=5, min_p=0.1, seed=0)
