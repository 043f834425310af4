"""What a target or a prompter thinks is never sent, never scored, and never shown as an answer."""

from __future__ import annotations

from typing import Any

import pytest

from alignpro_lite import AlignedModel, Reasoning, Request, RhoStar, Sampling, Text
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.errors import InputError
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.refusal import refusal_of
from alignpro_lite.rewriting.spans import protect
from tests.support import reasoning_models as models
from tests.support.scripted_models import PROMPT, FakePrompter, FakeTarget, drawn, rewarded
from tests.support.toy_rewards import NotingScorer

BETTER = "How do I stay safe online at home?"
THOUGHT = "<think>\nIt is a sum.\n</think>\n\nIt is 357."


class ThinkingTarget(FakeTarget):
    """Does not get past its thought for some prompts."""

    def __init__(self, *unfinished: str):
        super().__init__()
        self.unfinished = unfinished

    def _answer(self, question, number):
        answer = super()._answer(question, number)
        if question.messages[-1].content in self.unfinished:
            answer.text, answer.reasoning = "", "Let me think"
            answer.thought_only, answer.finish_reason = True, "length"
        return answer


def test_a_trial_that_is_still_a_thought_has_no_reward():
    """Holds down: 96 tokens of a thought were scored as if they were the answer."""
    prompter: Any = FakePrompter([BETTER])
    target: Any = ThinkingTarget(BETTER)
    certificate = drawn(prompter, rewarded(lambda _: 1.0), target, samples=2).certificate
    assert certificate.scored == 0
    assert certificate.reason == "no rewrite has a reward"
    assert certificate.dropped == (
        "candidate 0: its answers were still a thought",
        "candidate 1: its answers were still a thought",
    )
    assert certificate.before is not None
    assert certificate.notes == (
        "4 of 6 trial answers were still a thought after 96 tokens, which says nothing about the "
        "answer.",
    )


def test_a_model_that_only_thinks_keeps_the_prompt_and_no_trial():
    prompter: Any = FakePrompter([BETTER])
    target: Any = ThinkingTarget(BETTER, PROMPT)
    choice = drawn(prompter, rewarded(lambda _: 1.0), target, samples=2)
    assert (choice.sent, choice.answer) == (PROMPT, None)
    assert choice.certificate.before is None


@pytest.fixture
def opened(tmp_path, monkeypatch):
    targets = []

    def load(template, *replies):
        models.script(monkeypatch, replies or [THOUGHT])
        targets.append(models.open_target(models.write(tmp_path / "m.gguf", template)))
        return targets[-1]

    yield load
    for target in targets:
        target.close()


def with_trials(target, **options):
    """A draw with trials of 20 tokens, and what the reward saw."""
    scorer = NotingScorer()
    prompter: Any = FakePrompter([BETTER])
    settings = RhoStar(samples=1, strength=1.0, guard="off", trial_tokens=20)
    request = Request(
        rho_star=settings, sampling=Sampling(seed=1), **{"max_tokens": 200, **options}
    )
    reward = Reward([scorer], {"length": 1.0})
    choice = draw(DrawModels(prompter, target, reward), protect(PROMPT), request, Cancellation())
    return choice, scorer.seen


@pytest.mark.parametrize(
    ("template", "thinking", "asked", "continued"),
    [
        (models.SWITCH, "auto", "off", False),
        (models.SWITCH, "on", "off", False),
        (models.SWITCH, "off", "off", True),
        (models.SWITCH_OFF, "auto", "off", True),
        (models.SWITCH_OFF, "on", "off", False),
        (models.ALWAYS, "auto", "auto", True),
        (models.PLAIN, "auto", "auto", True),
    ],
)
def test_trials_are_asked_without_a_thought(opened, template, thinking, asked, continued):
    """What was asked otherwise than the user wants is evidence, and not the answer."""
    target = opened(template, "It is 357.")
    questions = []
    answer_together = target.answer_together

    def noted(some, **options):
        questions.extend(some)
        return answer_together(some, **options)

    target.answer_together = noted
    choice, seen = with_trials(target, thinking=thinking)
    assert {question.thinking for question in questions} == {asked}
    assert seen == ["It is 357."] * 4
    assert (choice.answer is not None) == continued


def test_a_reward_sees_the_answer_alone(opened):
    target = opened(models.ALWAYS, "<think>a</think>Yes.")
    choice, seen = with_trials(target)
    assert seen == ["Yes."] * 4
    assert choice.answer.reasoning == "a"


def test_a_trial_that_is_a_whole_answer_is_asked_as_the_answer(opened):
    target = opened(models.SWITCH, "<think>a</think>Yes.")
    choice, seen = with_trials(target, max_tokens=20)
    assert seen == ["Yes."] * 4
    assert choice.answer.reasoning == "a"


def aligned(target) -> AlignedModel:
    plan: Any = None
    return AlignedModel(target, None, plan)


def test_a_result_tells_thought_and_answer_apart(opened):
    result = aligned(opened(models.ALWAYS)).run("What is 12 + 345?", Request(max_tokens=200))
    assert (result.reasoning, result.answer) == ("It is a sum.", "It is 357.")
    assert not result.thought_only


def test_a_stream_gives_the_answer_and_events_give_both(opened):
    target = opened(models.ALWAYS)
    request = Request(max_tokens=200)
    assert "".join(aligned(target).stream("What is 12 + 345?", request)) == "It is 357."
    events = list(aligned(target).stream("What is 12 + 345?", request).events())
    assert "".join(e.text for e in events if isinstance(e, Reasoning)).strip() == "It is a sum."
    assert events[-2] == Text(".")
    assert events[-1].result.reasoning == "It is a sum."


def test_a_cut_thought_is_told(opened):
    result = aligned(opened(models.ALWAYS)).run("What is 12 + 345?", Request(max_tokens=6))
    assert (result.answer, result.finish_reason, result.thought_only) == ("", "length", True)


def test_an_answer_that_a_stop_string_ends_at_once_is_no_thought(opened):
    """Holds down: a result told it by its empty text, unlike the stream it came from."""
    model = aligned(opened(models.ALWAYS))
    result = model.run("What is 12 + 345?", Request(max_tokens=200, stop=("It",)))
    assert (result.answer, result.finish_reason, result.thought_only) == ("", "stop", False)


def test_a_thought_that_is_empty_is_a_thought(opened):
    result = aligned(opened(models.OPENED, "")).run("What is 12 + 345?", Request(max_tokens=9))
    assert (result.answer, result.reasoning, result.thought_only) == ("", "", True)


def test_a_switch_that_is_missing_is_refused_before_the_prompt_is_rewritten(opened):
    model = aligned(opened(models.ALWAYS))
    with pytest.raises(InputError, match="Thinking cannot be turned off"):
        model.stream("Hello", Request(thinking="off"))


@pytest.mark.parametrize(
    "options",
    [
        {"thinking": "maybe"},
        {"thinking": None},
        {"thinking": True},
        {"stop": "END"},
        {"stop": (1,)},
        {"stop": None},
        {"protect": "id"},
    ],
)
def test_a_request_refuses_what_would_silently_mean_something_else(options):
    """Holds down: every word but `on` turned thinking off, and a string stopped at each letter."""
    (name,) = options
    with pytest.raises(InputError, match=f"{name} must be"):
        Request(**options)


def test_a_rewrite_that_is_only_a_thought_is_refused():
    written = Rewrite("", "", (1,), -1.0, -1.0, "length", "Let me see", thought_only=True)
    refusal = refusal_of(protect(PROMPT), written)
    assert refusal.kind == "thought"
    assert refusal.reason == "the prompter thought and came to no rewrite"


def test_a_rewrite_loses_its_thought_and_may_be_used():
    """Holds down: a rewrite with a thought before it was refused, though the thought is apart."""
    written = Rewrite(BETTER, BETTER, (1,), -1.0, -1.0, "stop", "The user wants safety.")
    assert refusal_of(protect(PROMPT), written) is None
