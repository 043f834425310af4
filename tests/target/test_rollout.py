"""The deployed GGUF as a rollout target: one batch, own seeds, failures that stay apart."""

from __future__ import annotations

import pytest

from alignpro_lite import Message, Sampling
from alignpro_lite.errors import DeviceError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.rollout import Answer, AnswerPlan, GgufTarget, TargetFailure
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_TARGET, answers_of

ASK = [Message("user", "What is 12 + 345?")]
WARM = Sampling(temperature=1.5, seed=3)
SETTINGS = TargetSettings(context=512, sequences=4, n_gpu_layers=0, gpu=None, threads=1)


def load():
    return GgufTarget(LlamaTarget(TINY_TARGET, read_header(TINY_TARGET), SETTINGS))


@pytest.fixture(scope="module")
def target():
    loaded = load()
    yield loaded
    loaded.close()


def test_every_conversation_gets_its_answers_in_order(target):
    conversations = [ASK, [Message("user", "Tell")], ASK]
    outcomes = answers_of(target, conversations, 2, 10, WARM)
    assert [len(two) for two in outcomes] == [2, 2, 2]
    for two in outcomes:
        assert all(isinstance(y, Answer) and y.tokens and 0 < y.tokens <= 10 for y in two)
    assert outcomes == answers_of(target, conversations, 2, 10, WARM)


def test_equal_conversations_get_different_answers(target):
    outcomes = answers_of(target, [ASK] * 3, 2, 12, WARM)
    assert len({one.text for two in outcomes for one in two}) == 6


def test_answers_depend_on_the_call_alone(target):
    """Holds down: conversations were begun one by one, and roundings hung on the loop's timing."""
    conversations = [[Message("user", f"Tell {n}")] for n in range(9)]
    first = answers_of(target, conversations, 1, 40, WARM)
    answers_of(target, [ASK], 3, 20, WARM)
    assert [answers_of(target, conversations, 1, 40, WARM) for _ in range(3)] == [first] * 3


def test_one_bad_conversation_does_not_lose_the_others(target):
    bad = [[], [Message("user", "\ud800")], [Message("user", "word " * 600)]]
    outcomes = answers_of(target, [*bad, ASK], 2, 4, WARM)
    assert all(isinstance(one, TargetFailure) for two in outcomes[:3] for one in two)
    assert "holds 512 tokens" in outcomes[2][0].reason
    assert [len(two) for two in outcomes] == [2] * 4
    assert all(isinstance(one, Answer) for one in outcomes[3])


def test_more_answers_than_rows_take_turns(target):
    """Holds down: 5 answers to each conversation were refused by a target of 4 sequences."""
    (answers,) = answers_of(target, [ASK], 5, 4, WARM)
    assert len(answers) == 5
    assert all(isinstance(answer, Answer) for answer in answers)
    assert answers[:2] == answers_of(target, [ASK], 2, 4, WARM)[0]


def test_an_interrupted_call_stops_what_it_started(target, monkeypatch):
    """Holds down: after Ctrl-C the engine kept decoding answers that nobody would read."""
    started = []
    answer_together = target.llama.answer_together

    def noted(questions, **options):
        streams = answer_together(questions, **options)
        started.extend(stream for (stream,) in streams)
        return streams

    def interrupted(self, token):
        raise KeyboardInterrupt

    monkeypatch.setattr(target.llama, "answer_together", noted)
    monkeypatch.setattr(LlamaTarget, "piece", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answers_of(target, [ASK] * 3, 1, 200, WARM)
    monkeypatch.undo()
    for stream in started[1:]:
        list(stream)
        assert stream.finish_reason == "cancelled"


def test_a_closed_target_is_an_error_and_no_failure():
    target = load()
    target.close()
    with pytest.raises(DeviceError, match="closed"):
        answers_of(target, [ASK], 1, 1, WARM)


def test_a_run_from_before_the_switch_can_be_resumed():
    """Its configuration has no `thinking`, which counts as None: not as a changed key."""
    assert AnswerPlan().thinking is None
    assert (AnswerPlan().switch, AnswerPlan(thinking="off").switch) == ("auto", "off")
