"""Targets that reason: thoughts are streamed apart, and the switch of the template is used."""

from __future__ import annotations

import pytest
import torch

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.reasoning import Passage
from alignpro_lite.errors import InputError
from alignpro_lite.pretrained.torch_model import load_torch_model
from alignpro_lite.target.question import Question
from alignpro_lite.target.rollout import Answer, AnswerPlan, GgufTarget, TargetFailure
from alignpro_lite.target.torch_target import HfTarget
from tests.support import reasoning_models as models

ASK = [Message("user", "What is 12 + 345?")]
THOUGHT = "<think>\nIt is a sum.\n</think>\n\nIt is 357."
CHANNELS = (
    "<|channel|>analysis<|message|>It is a sum.<|end|><|start|>assistant"
    "<|channel|>final<|message|>It is 357."
)


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens a target of a template that replies as it is told."""
    targets = []

    def load(template, *replies, **options):
        models.script(monkeypatch, replies or [THOUGHT])
        targets.append(models.open_target(models.write(tmp_path / "m.gguf", template, **options)))
        return targets[-1]

    yield load
    for target in targets:
        target.close()


def answered(target, **options):
    (stream,) = target.answer(Question(ASK, **{"max_tokens": 200, **options}))
    return "".join(stream), stream


@pytest.mark.parametrize("token_type", [models.CONTROL, models.USER_DEFINED])
@pytest.mark.parametrize(
    ("template", "tags", "text"),
    [
        (models.ALWAYS, models.THINK_TAGS, THOUGHT),
        (models.OPENED, models.THINK_TAGS, THOUGHT.removeprefix("<think>\n")),
        (models.CHANNELS, models.CHANNEL_TAGS, CHANNELS),
        (models.ALWAYS, (), THOUGHT),  # tags of several tokens
    ],
)
def test_a_thought_is_kept_apart_from_the_answer(opened, template, tags, text, token_type):
    """Holds down: control tokens have no text, so their tags were lost and thoughts were answers.

    Also: tags that a template opens itself are not in the reply.
    """
    target = opened(template, text, tags=tags, token_type=token_type)
    answer, stream = answered(target)
    assert (stream.reasoning, answer) == ("It is a sum.", "It is 357.")
    assert not stream.thought_only
    assert stream.finish_reason == "stop"


@pytest.mark.parametrize("typed", ["<think>", "a <think>\n"])
def test_a_tag_at_the_end_of_a_prompt_opens_no_thought(opened, typed):
    """Holds down: where but a special token follows, the whole answer was taken for a thought."""
    tags = (*models.THINK_TAGS, "<|assistant|>")
    template = "{{ messages[0].content }}<|assistant|>{# </think> #}"
    target = opened(template, "It is 357.", tags=tags, token_type=models.CONTROL)
    (stream,) = target.answer(Question([Message("user", typed)], max_tokens=200))
    assert ("".join(stream), stream.reasoning) == ("It is 357.", "")


def test_a_thought_is_streamed_as_it_comes(opened):
    target = opened(models.ALWAYS)
    (stream,) = target.answer(Question(ASK, max_tokens=200))
    passages = list(stream.passages())
    assert passages[0] == Passage("I", is_thought=True)
    assert passages[-1] == Passage(".", is_thought=False)
    thoughts = [passage.is_thought for passage in passages]
    assert thoughts == sorted(thoughts, reverse=True)
    assert len(passages) > 10


def test_a_model_that_does_not_reason_may_write_tags(opened):
    answer, stream = answered(opened(models.PLAIN))
    assert (stream.reasoning, answer) == ("", THOUGHT)


def test_max_tokens_covers_the_thought_and_a_cut_thought_is_told(opened):
    answer, stream = answered(opened(models.ALWAYS), max_tokens=6)
    assert (answer, stream.finish_reason, stream.token_count) == ("", "length", 6)
    assert stream.thought_only
    assert stream.reasoning


def test_stop_strings_are_text_in_a_thought(opened):
    answer, stream = answered(opened(models.ALWAYS), stop=["is"])
    assert (stream.reasoning, answer) == ("It is a sum.", "It ")
    assert stream.finish_reason == "stop"


def test_an_answer_that_begins_with_its_thought_is_split_the_same(opened):
    """What follows a trial is decoded behind its tokens, which may end inside the thought."""
    target = opened(models.OPENED, THOUGHT.removeprefix("<think>\n"))
    _, whole = answered(target)
    for length in (1, 5, len(whole.tokens) - 3):
        begun = tuple(whole.draws[:length])
        left = b"".join(map(target.spoken, whole.tokens[length:])).decode()
        again = opened(models.OPENED, left)
        answer, stream = answered(again, begun=begun)
        assert (stream.reasoning, answer) == ("It is a sum.", "It is 357.")


@pytest.mark.parametrize(
    ("template", "default"),
    [
        (models.SWITCH, "on"),
        (models.SWITCH_OFF, "off"),
        (models.ALWAYS, None),
        (models.PLAIN, None),
        (models.ALWAYS + "{# enable_thinking is not used #}", None),
    ],
)
def test_a_switch_is_found_by_what_it_does(opened, template, default):
    assert opened(template).thinking.default == default


def test_the_switch_reaches_the_template(opened):
    target = opened(models.SWITCH)
    on, off, auto = (
        b"".join(map(target.spoken, target.prompt_tokens(ASK, thinking)))
        for thinking in ("on", "off", "auto")
    )
    assert on == auto == off.removesuffix(b"<think>\n\n</think>\n\n")
    assert off != on


def test_without_its_thought_a_reply_is_the_answer(opened):
    answer, stream = answered(opened(models.SWITCH, "It is 357."), thinking="off")
    assert (stream.reasoning, answer, stream.thought_only) == ("", "It is 357.", False)


@pytest.mark.parametrize(
    ("template", "thinking", "reason"),
    [
        (models.ALWAYS, "off", "it thinks as it likes"),
        (models.ALWAYS, "on", "it thinks as it likes"),
        (models.PLAIN, "on", "it does not think"),
    ],
)
def test_a_switch_that_is_missing_is_refused(opened, template, thinking, reason):
    with pytest.raises(InputError, match=reason):
        opened(template).answer(Question(ASK, max_tokens=4, thinking=thinking))


def test_a_model_that_never_thinks_may_be_told_not_to(opened):
    target = opened(models.PLAIN)
    assert target.prompt_tokens(ASK, "off") == target.prompt_tokens(ASK)


def test_replies_are_judged_without_a_thought(opened):
    """Holds down: the first token of a judge that reasons was `<think>`, neither Yes nor No."""
    closed = opened(models.PLAIN + "{{ '<think>\n\n</think>\n\n' }}")
    expected = closed.choice_log_probs([ASK], ["Yes", "No"]).tolist()
    assert opened(models.SWITCH).choice_log_probs([ASK], ["Yes", "No"]).tolist() == expected


def test_a_thought_that_the_prompt_opens_is_closed_before_a_reply_is_judged(opened):
    """A template without a switch left the judge inside its thought, of which no letter says
    anything."""
    target = opened(models.OPENED)
    asked = b"".join(target.spoken(token) for token in target._reply_prompt(ASK))
    assert asked.endswith(b"</think>\n\n")
    assert b"</think>" not in b"".join(map(target.spoken, target.prompt_tokens(ASK)))
    plain = opened(models.PLAIN)
    assert plain._reply_prompt(ASK) == plain.prompt_tokens(ASK)


def test_training_and_evaluation_see_the_answer_alone(opened):
    rollouts = GgufTarget(opened(models.ALWAYS))
    assert rollouts.answers([ASK], AnswerPlan(1, 200), [0])[0][0].text == "It is 357."
    ((failure,),) = rollouts.answers([ASK], AnswerPlan(1, 6), [0])
    assert failure == TargetFailure(
        "the target was still thinking after 6 tokens; raise answers.max_tokens, or set "
        'answers.thinking = "off"'
    )


def test_a_plan_turns_thinking_off(opened):
    rollouts = GgufTarget(opened(models.SWITCH, "It is 357."))
    plan = AnswerPlan(1, 200, thinking="off")
    assert rollouts.answers([ASK], plan, [0])[0][0].text == "It is 357."
    rollouts = GgufTarget(opened(models.PLAIN))
    assert isinstance(
        rollouts.answers([ASK], AnswerPlan(1, 9, thinking="on"), [0])[0][0], TargetFailure
    )


def test_a_model_in_torch_thinks_in_the_same_way(tmp_path, monkeypatch):
    path = models.write(tmp_path / "m.gguf", models.OPENED)
    with models.open_target(path) as llama:
        written = [*llama._native.tokenize("a</think>b", special=True), llama._native.eos]
        asked = llama.prompt_tokens(ASK)
    target = HfTarget(load_torch_model(path))
    assert target.prompt_tokens(ASK) == asked
    rows = torch.tensor([[*asked, *written]])
    monkeypatch.setattr(target._model, "generate", lambda *_, **__: rows)
    assert target.answers([ASK], AnswerPlan(1, 9), [0]) == [[Answer("b", len(written), "stop")]]
    rows = rows[:, :-3]
    ((failure,),) = target.answers([ASK], AnswerPlan(1, 9), [0])
    assert isinstance(failure, TargetFailure)


def test_a_tag_at_the_end_of_a_prompt_opens_no_thought_in_torch(tmp_path, monkeypatch):
    """As above: special tokens were left out of the text whose end was looked at."""
    template = "{{ messages[0].content }}<|im_start|>{# </think> #}"
    target = HfTarget(load_torch_model(models.write(tmp_path / "m.gguf", template)))
    ask = [Message("user", "a <think>")]
    asked = target.prompt_tokens(ask)
    rows = torch.tensor([[*asked, *target.prompt_tokens([Message("user", "b")])[:-1]]])
    monkeypatch.setattr(target._model, "generate", lambda *_, **__: rows)
    assert target.answers([ask], AnswerPlan(1, 9), [0])[0][0].text == "b"
