"""The deployed GGUF as a rollout target: one batch, own seeds, failures that stay apart."""

from __future__ import annotations

import pytest
from conftest import TINY_TARGET

from alignpro_lite import Message, Sampling
from alignpro_lite.errors import DeviceError, InputError
from alignpro_lite.gguf import read
from alignpro_lite.rollout_target import Answer, GgufTarget, TargetFailure
from alignpro_lite.target import LlamaTarget, TargetSettings

ASK = [Message("user", "What is 12 + 345?")]
WARM = Sampling(temperature=1.5, seed=3)
SETTINGS = TargetSettings(context=512, sequences=4, n_gpu_layers=0, gpu=None, threads=1)


def load():
    return GgufTarget(LlamaTarget(TINY_TARGET, read(TINY_TARGET), SETTINGS))


@pytest.fixture(scope="module")
def target():
    loaded = load()
    yield loaded
    loaded.close()


def test_every_conversation_gets_its_answers_in_order(target):
    conversations = [ASK, [Message("user", "Tell")], ASK]
    outcomes = target.answers(conversations, 2, 10, WARM)
    assert [len(two) for two in outcomes] == [2, 2, 2]
    for two in outcomes:
        assert all(isinstance(one, Answer) and 0 < one.tokens <= 10 for one in two)
    assert outcomes == target.answers(conversations, 2, 10, WARM)


def test_equal_conversations_get_different_answers(target):
    outcomes = target.answers([ASK] * 3, 2, 12, WARM)
    assert len({one.text for two in outcomes for one in two}) == 6


def test_conversations_are_decoded_together(target, monkeypatch):
    """Holds down: all are submitted before any is read, or the batch would be one row wide."""
    events = []
    answer = target._target.answer

    def noted(messages, **options):
        events.append("submit")
        return answer(messages, **options)

    monkeypatch.setattr(target._target, "answer", noted)
    join = LlamaTarget.piece

    def piece(self, token):
        events.append("read")
        return join(self, token)

    monkeypatch.setattr(LlamaTarget, "piece", piece)
    target.answers([ASK] * 3, 1, 2, WARM)
    assert events[:3] == ["submit"] * 3
    assert set(events[3:]) == {"read"}


def test_one_bad_conversation_does_not_lose_the_others(target):
    bad = [[], [Message("user", "\ud800")], [Message("user", "word " * 600)]]
    outcomes = target.answers([*bad, ASK], 2, 4, WARM)
    assert all(isinstance(one, TargetFailure) for two in outcomes[:3] for one in two)
    assert "holds 512 tokens" in outcomes[2][0].reason
    assert [len(two) for two in outcomes] == [2] * 4
    assert all(isinstance(one, Answer) for one in outcomes[3])


def test_more_answers_than_rows_are_refused_at_once(target):
    with pytest.raises(InputError, match="decodes 4 sequences"):
        target.answers([ASK], 5, 4, WARM)


def test_an_interrupted_call_stops_what_it_started(target, monkeypatch):
    """Holds down: after Ctrl-C the engine went on with answers that nobody would read."""
    started = []
    answer = target._target.answer

    def interrupted(messages, **options):
        if len(started) == 2:
            raise KeyboardInterrupt
        started.extend(answer(messages, **options))
        return started[-1:]

    monkeypatch.setattr(target._target, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        target.answers([ASK] * 3, 1, 200, WARM)
    for stream in started:
        list(stream)
        assert stream.finish_reason == "cancelled"


def test_a_closed_target_is_an_error_and_no_failure():
    target = load()
    target.close()
    with pytest.raises(DeviceError, match="closed"):
        target.answers([ASK], 1, 1, WARM)
