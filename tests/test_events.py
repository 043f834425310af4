"""What a stream tells while it works, and what may be changed before the answer begins."""

from __future__ import annotations

import gc
import time
import weakref
from dataclasses import replace
from typing import Any

import pytest

from alignpro_lite import (
    AlignedStream,
    Candidates,
    Done,
    Penalties,
    Request,
    Rewriting,
    Rewritten,
    RhoStar,
    Sampling,
    Text,
)
from alignpro_lite.errors import ContextOverflowError, InputError
from alignpro_lite.rewriting.draw import CHOSEN_BY_USER, KEPT_BY_USER, DrawModels
from alignpro_lite.rewriting.spans import protect
from tests.support.scripted_models import PROMPT, FakePrompter, FakeTarget, rewarded

GOOD, BAD = f"{PROMPT}\n\nName the risks.", f"{PROMPT}\n\nSay little."
SHORT = Request(max_tokens=6, sampling=Sampling(seed=3))


def kinds(events):
    return [type(event) for event in events]


def scripted(outputs, request, reward=None) -> AlignedStream:
    """The stream of a prompter that writes given texts."""
    prompter: Any = FakePrompter(outputs, ratios=[0.1 * place for place in range(len(outputs))])
    target: Any = FakeTarget()
    return AlignedStream(DrawModels(prompter, target, reward), protect(PROMPT), request)


def chosen(outputs, request, reward=None) -> AlignedStream:
    """A stream whose prompt is known."""
    stream = scripted(outputs, request, reward)
    stream.prepare()
    return stream


def test_the_events_of_an_answer_come_in_order(tiny_model):
    events = list(tiny_model.stream(PROMPT, SHORT).events())
    assert kinds(events)[:3] == [Rewriting, Candidates, Rewritten]
    assert set(kinds(events)[3:-1]) <= {Text}
    assert isinstance(events[-1], Done)
    result = events[-1].result
    assert result.answer == "".join(event.text for event in events if isinstance(event, Text))
    assert result.choice == events[2].choice


def test_iterating_gives_the_text_of_the_events_alone(tiny_model):
    text = "".join(tiny_model.stream(PROMPT, SHORT))
    assert text == tiny_model.run(PROMPT, SHORT).answer


def test_an_iteration_that_was_left_goes_on_where_it_was(tiny_model):
    whole = list(tiny_model.stream(PROMPT, SHORT).events())
    stream = tiny_model.stream(PROMPT, SHORT)
    first = [next(stream.events()) for _ in range(2)]
    rest = list(stream.events())
    assert kinds(first + rest) == kinds(whole)
    assert stream.result() == replace(whole[-1].result, timings=stream.result().timings)


def test_an_iteration_may_begin_before_prepare(tiny_model):
    stream = tiny_model.stream(PROMPT, SHORT)
    events = stream.events()
    told = [next(events)]
    stream.prepare()
    assert kinds([*told, *events])[:3] == [Rewriting, Candidates, Rewritten]


def test_what_prepare_reads_is_told_afterwards(tiny_model):
    stream = tiny_model.stream(PROMPT, SHORT)
    choice = stream.prepare()
    events = list(stream.events())
    assert kinds(events)[:3] == [Rewriting, Candidates, Rewritten]
    assert events[2].choice is choice


def test_candidates_tell_what_is_drawn_and_rated_and_the_best_so_far():
    request = Request(rho_star=RhoStar(samples=4, strength=0.5))
    reward = rewarded(lambda sent: {GOOD: 1.0, BAD: -1.0}.get(sent, 0.0))
    stream = chosen([BAD, GOOD], request, reward)
    _, drawn, rated, *heats, rewritten = stream._ahead
    assert (drawn.drawn, drawn.rated, drawn.of, drawn.best) == (4, 0, 4, None)
    assert (rated.drawn, rated.rated, rated.of) == (4, 4, 4)
    assert rated.best.text == GOOD
    assert heats
    assert set(kinds(heats)) == {Candidates}
    assert rewritten.choice.sent == GOOD


def test_candidates_without_a_reward_are_rated_by_the_implicit_one():
    stream = chosen([BAD, GOOD], Request(rho_star=RhoStar(samples=2)))
    _, drawn, rated, _ = stream._ahead
    assert (drawn.rated, rated.rated, rated.best.text) == (0, 2, GOOD)


def test_auto_does_not_say_how_many_it_will_draw():
    request = Request(rho_star=RhoStar(samples="auto", strength=5.0))
    stream = chosen([BAD, GOOD], request, rewarded(lambda sent: 0.0))
    steps = [event for event in stream._ahead if isinstance(event, Candidates)]
    assert {step.of for step in steps} == {None}


def test_off_sends_the_prompt_and_asks_no_prompter(tiny_model):
    stream = tiny_model.stream(PROMPT, replace(SHORT, rewrite="off"))
    events = list(stream.events())
    assert kinds(events)[0] is Rewritten
    choice = events[0].choice
    assert (choice.sent, choice.rewrite, choice.reason) == (PROMPT, None, "rewriting is off")
    assert choice.certificate.drawn == 0


def test_on_and_auto_rewrite(tiny_model):
    on, auto = (tiny_model.run(PROMPT, replace(SHORT, rewrite=kind)) for kind in ("on", "auto"))
    assert on.choice == auto.choice
    assert on.choice.rewrite is not None


def test_another_switch_for_the_rewrite_is_refused():
    wrong: Any = "sometimes"
    with pytest.raises(InputError, match="rewrite must be auto, on, off"):
        Request(rewrite=wrong)


def test_the_user_sends_an_edited_rewrite(tiny_model):
    stream = tiny_model.stream(PROMPT, SHORT)
    told = []
    for event in stream.events():
        told.append(event)
        if kinds(told).count(Rewritten) == 1 and isinstance(event, Rewritten):
            stream.use("Say hello.")
    choices = [event.choice for event in told if isinstance(event, Rewritten)]
    assert [choice.reason for choice in choices][1:] == [CHOSEN_BY_USER]
    result = stream.result()
    assert (result.choice.prompt, result.choice.sent) == (PROMPT, "Say hello.")
    assert result.choice.rewrite == choices[0].rewrite
    assert [change.kind for change in result.certificate.changes] != ["kept"]
    plain = replace(SHORT, rewrite="off")
    assert result.answer == tiny_model.run("Say hello.", plain).answer


def test_the_user_keeps_the_prompt_after_prepare():
    stream = chosen([GOOD], Request())
    assert stream.choice is not None
    assert stream.choice.sent == GOOD
    assert stream.use(PROMPT).reason == KEPT_BY_USER
    assert stream.choice.sent == PROMPT


def test_a_user_who_sends_the_rewrite_as_it_is_changes_nothing():
    request = Request(rho_star=RhoStar(samples=2, strength=0.5))
    stream = chosen([GOOD], request, rewarded(lambda sent: float(sent == GOOD)))
    choice = stream.prepare()
    assert choice.answer is not None
    assert stream.use(GOOD) is choice


def test_a_trial_answer_to_another_prompt_is_not_the_answer():
    request = Request(rho_star=RhoStar(samples=2, strength=0.5))
    stream = chosen([GOOD], request, rewarded(lambda sent: float(sent == GOOD)))
    assert stream.use("Say hello.").answer is None


def test_a_prompt_that_is_chosen_first_needs_no_rewrite():
    stream = scripted([GOOD], Request())
    assert stream.use("Say hello.").sent == "Say hello."
    assert kinds([next(stream.events())]) == [Rewritten]


def test_a_choice_in_the_middle_of_a_draw_ends_it():
    request = Request(rho_star=RhoStar(samples=4, strength=0.5))
    reward = rewarded(lambda sent: 0.0)
    stream = scripted([BAD, GOOD], request, reward)
    events = stream.events()
    while not isinstance(next(events), Candidates):
        pass
    stream.use("Say hello.")
    assert kinds([next(events)]) == [Rewritten]


def test_the_prompt_cannot_be_replaced_once_the_answer_has_begun(tiny_model):
    stream = tiny_model.stream(PROMPT, SHORT)
    events = stream.events()
    while not isinstance(next(events), Text):
        pass
    with pytest.raises(InputError, match="answer has begun"):
        stream.use("Say hello.")


@pytest.mark.parametrize("wrong", ["", " \n", "\ud800"], ids=ascii)
def test_an_edit_must_be_a_prompt(tiny_model, wrong):
    stream = tiny_model.stream(PROMPT, SHORT)
    choice = stream.prepare()
    with pytest.raises(InputError):
        stream.use(wrong)
    assert stream.choice is choice


def test_a_cancelled_stream_ends_with_done(tiny_model):
    stream = tiny_model.stream(PROMPT, SHORT)
    stream.cancel()
    events = list(stream.events())
    assert kinds(events) == [Rewritten, Done]
    assert events[1].result.finish_reason == "cancelled"
    assert events[1].result.choice.reason == "cancelled"


def test_a_stream_that_is_dropped_ends_its_answer_at_once(tiny_model):
    """It referred to itself, so its answer was decoded until the garbage collector came."""
    never = Penalties(bias=((0, -100.0), (2, -100.0)))
    stream = tiny_model.stream(PROMPT, Request(max_tokens=1500, rewrite="off", penalties=never))
    gc.disable()
    try:
        pieces = iter(stream)
        next(pieces)
        dropped = weakref.ref(stream)
        del stream, pieces
        assert dropped() is None
        deadline = time.monotonic() + 5
        while tiny_model.target.engine._live and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not tiny_model.target.engine._live
    finally:
        gc.enable()


def test_what_has_failed_fails_again(tiny_model):
    """The second time it was an empty answer that somebody had cancelled."""
    stream = tiny_model.stream("word " * 5000, Request(rewrite="off"))
    for ask in (stream.result, lambda: list(stream), stream.result):
        with pytest.raises(ContextOverflowError):
            ask()
