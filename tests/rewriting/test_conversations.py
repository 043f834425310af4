"""The prompter sees what the last message refers to, and rewrites that message alone."""

from __future__ import annotations

from typing import Any

import pytest

from alignpro_lite import AlignedModel, DeviceRequest, Message, Request, RhoStar, Sampling
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.errors import ContextOverflowError
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.spans import protect
from tests.rewriting.test_streams import LengthScorer
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.conversations import TALKS
from tests.support.scripted_models import FakePrompter, FakeTarget

LAST = "And the second one?"
HISTORY = (Message("user", "Name two rivers."), Message("assistant", "The Rhine and the Po."))


@pytest.fixture(scope="module", params=["bundle", "self"])
def model(request):
    """The tiny pair, and the tiny target as its own prompter."""
    prompter = TINY_BUNDLE if request.param == "bundle" else "self"
    with AlignedModel.load(TINY_TARGET, prompter, devices=DeviceRequest("cpu")) as loaded:
        yield loaded


@pytest.fixture
def asked(model, monkeypatch):
    """What the prompter is asked, as text."""
    found: list[str] = []
    submit = model.prompter.submit

    def noted(prompt, samplers, max_tokens):
        target = model.target  # both tiny models have one vocabulary
        pieces = (target.piece(token) for token in prompt)
        found.append(b"".join(pieces).decode())
        return submit(prompt, samplers, max_tokens)

    monkeypatch.setattr(model.prompter, "submit", noted)
    return found


@pytest.mark.parametrize("talk", TALKS, ids=lambda talk: talk.last)
def test_the_prompter_is_asked_with_what_the_last_message_refers_to(model, asked, talk):
    model.rewrite(talk.last, 1, Request(history=talk.history))
    (text,) = asked
    place = text.index("Earlier in the conversation:")
    for words in talk.meant:
        place = text.index(words, place)
    assert text.index(talk.last, place) > place


@pytest.mark.parametrize("talk", TALKS[:4], ids=lambda talk: talk.last)
def test_the_rewrite_replaces_the_last_message_alone(model, asked, talk, monkeypatch):
    questions = []
    answer = model.target.answer

    def noted(question):
        questions.append(question)
        return answer(question)

    monkeypatch.setattr(model.target, "answer", noted)
    hot = Sampling(temperature=2.5)
    request = Request(history=talk.history, max_tokens=2, rewrite_sampling=hot)
    choice = model.run(talk.last, request).choice
    assert len(asked) == 1
    (question,) = questions
    assert tuple(question.messages) == (*talk.history, Message("user", choice.sent))
    assert choice.sent.startswith(talk.last)
    assert choice.prompt == talk.last


def test_a_system_prompt_and_empty_history_change_nothing_for_the_prompter(model, asked):
    model.rewrite(LAST, 1, Request())
    model.rewrite(LAST, 1, Request(system="Be brief.", history=(Message("system", "Be kind."),)))
    assert asked[0] == asked[1]
    assert "Earlier" not in asked[0]


def test_outputs_are_scored_under_the_conversation_in_which_they_were_drawn(model):
    """Holds down: a weight of ρ* that compares two different requests means nothing."""
    prompter = model.prompter
    earlier = prompter.fitting(LAST, HISTORY)
    (rewrite,) = prompter.rewrite(LAST, 1, Sampling(temperature=1.3, seed=3), earlier)
    (told,) = prompter.score(LAST, [rewrite.tokens], earlier)
    assert rewrite.log_prob == pytest.approx(told, abs=0.05)
    assert prompter.score(LAST, [rewrite.tokens]) != pytest.approx([told], abs=0.05)
    without = prompter.reference_score(LAST, [rewrite.tokens])
    assert prompter.reference_score(LAST, [rewrite.tokens], earlier) != without


def roomy(prompter: Prompter, monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """Let a prompter have room for so many turns of `many`, and no more."""
    most = len(prompter.prompt_tokens(LAST, many()[-turns:] if turns else ()))

    def require_room(asked):
        if len(asked) > most:
            raise ContextOverflowError("Too long.", "Shorten it.")

    monkeypatch.setattr(prompter, "require_room", require_room)


def many() -> tuple[Message, ...]:
    return tuple(
        Message("assistant" if place % 2 else "user", f"turn {place} of the talk")
        for place in range(9)
    )


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4])
def test_the_oldest_turns_are_left_out_whole_until_the_request_fits(model, monkeypatch, turns):
    roomy(model.prompter, monkeypatch, turns)
    assert model.prompter.fitting(LAST, many()) == many()[9 - turns :]


def test_the_prompt_is_never_cut_for_what_was_said_before(model):
    """A prompt without room is refused as it is without a conversation."""
    long = "word " * 3000
    assert model.prompter.fitting(long, HISTORY) == ()
    with pytest.raises(ContextOverflowError):
        model.run(long, Request(history=HISTORY))


def test_what_fits_is_found_by_the_context_itself(model):
    prompter = model.prompter
    prompt, turn = "word", Message("user", "x" * 390)
    while prompter.fitting(prompt, [turn] * 4) == (turn,) * 4:
        prompt += " word" * 20
    kept = prompter.fitting(prompt, [turn] * 4)
    prompter.require_room(prompter.prompt_tokens(prompt, kept))
    with pytest.raises(ContextOverflowError):
        prompter.require_room(prompter.prompt_tokens(prompt, [*kept, turn]))


def test_every_step_of_a_draw_shows_the_same_turns():
    prompter: Any = FakePrompter([LAST, f"{LAST}\n\nSay where it ends."])
    target: Any = FakeTarget()
    request = Request(history=HISTORY, rho_star=RhoStar(samples=4, guard="off"))
    reward = Reward([LengthScorer()], {"length": 1.0})
    draw(DrawModels(prompter, target, reward), protect(LAST), request, Cancellation())
    assert len(prompter.shown) == 2  # drawn, and scored with ρ_sft
    assert set(prompter.shown) == {HISTORY}
    assert {tuple(question.messages[:-1]) for question in target.asked} == {HISTORY}
