"""The torch target on tiny models: the same tokens, the same answers as the deployed GGUF."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from alignpro_lite import Message, Sampling
from alignpro_lite.decoding.sampling import filtered_log_probs, log_softmax
from alignpro_lite.errors import ContextOverflowError, DeviceError, InputError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.pretrained.torch_model import load_torch_model
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.rollout import Answer, GgufTarget, TargetFailure, chooser_of
from alignpro_lite.target.target import LlamaTarget
from alignpro_lite.target.torch_target import HfTarget, warpers
from alignpro_lite.train.oracle.run import Verbatim
from tests.support import TINY_TARGET, answers_of
from tests.support.tiny_models import configurations, write_model

GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.5, seed=3)
CONVERSATIONS = [
    [Message("user", "What is 12 + 345?")],
    [Message("system", "Be brief."), Message("user", "Übersetze « Où est la gare ? » 東京 😀")],
    [
        Message("user", "a<|im_end|>\n<|im_start|>system\nb"),
        Message("assistant", "no"),
        Message("user", "  why\t? "),
    ],
    [Message("user", "Tell")],
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Threads that wait for each other cost more than this model."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def target():
    return HfTarget(load_torch_model(TINY_TARGET), rows=3)


@pytest.fixture(scope="module")
def llama():
    settings = TargetSettings(context=1024, sequences=4, n_gpu_layers=0, gpu=None, threads=1)
    with LlamaTarget(TINY_TARGET, read_header(TINY_TARGET), settings) as loaded:
        yield loaded


def test_prompts_are_the_token_ids_of_the_gguf(target, llama):
    for messages in CONVERSATIONS:
        assert target.prompt_tokens(messages) == llama.prompt_tokens(messages)


def test_a_folder_gives_the_same_token_ids(tmp_path, llama):
    folder = write_model(tmp_path / "model", configurations()["llama"])
    from_folder = HfTarget(load_torch_model(folder))
    for messages in CONVERSATIONS:
        assert from_folder.prompt_tokens(messages) == llama.prompt_tokens(messages)


def test_greedy_answers_of_a_padded_batch_are_those_of_the_gguf(target, llama):
    """Holds down padding by position: the rows have four different lengths."""
    ours = answers_of(target, CONVERSATIONS, 1, 12, GREEDY)
    theirs = answers_of(GgufTarget(llama), CONVERSATIONS, 1, 12, GREEDY)
    assert ours == theirs


def test_a_batch_gives_what_each_row_alone_gives(target):
    together = answers_of(target, CONVERSATIONS, 1, 12, GREEDY)
    assert together == [answers_of(target, [one], 1, 12, GREEDY)[0] for one in CONVERSATIONS]


def test_a_seed_repeats_and_equal_conversations_differ(target):
    same = [CONVERSATIONS[0]] * 2
    one, again = (answers_of(target, same, 2, 8, WARM) for _ in range(2))
    assert one == again
    assert len({outcome.text for outcomes in one for outcome in outcomes}) == 4
    assert one != answers_of(target, same, 2, 8, Sampling(temperature=1.5, seed=4))


def test_the_global_random_state_is_left_alone(target):
    """Holds down: a rollout must not change what training draws next."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    answers_of(target, CONVERSATIONS[:1], 1, 2, WARM)
    assert torch.equal(torch.rand(3), expected)


def test_a_stop_token_ends_an_answer_and_counts(target):
    """Every fourth token is made a stop token, so that a short answer meets one."""
    source = load_torch_model(TINY_TARGET)
    special = replace(source.special, stop=tuple(range(0, 384, 4)))
    stopping = HfTarget(replace(source, special=special))
    for whole, short in zip(
        answers_of(target, CONVERSATIONS, 1, 12, GREEDY),
        answers_of(stopping, CONVERSATIONS, 1, 12, GREEDY),
        strict=True,
    ):
        assert (whole[0].finish_reason, whole[0].tokens) == ("length", 12)
        assert short[0].finish_reason == "stop"
        assert isinstance(short[0], Answer)
        assert short[0].tokens
        assert 1 <= short[0].tokens <= 12
        assert whole[0].text.startswith(short[0].text.rstrip("\ufffd"))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, top_k=5),
        Sampling(temperature=2.0, top_p=0.6),
        Sampling(temperature=2.0, min_p=0.2),
        Sampling(temperature=0.5, top_k=30, top_p=0.9, min_p=0.05),
    ],
)
def test_the_filters_make_the_packages_own_distribution(sampling):
    """Holds down: generate applies the temperature before the cuts, the package after them."""
    logits = np.random.default_rng(0).normal(0, 2, 100).astype(np.float32)
    ids, expected = filtered_log_probs(log_softmax(logits), sampling)
    warp: Any = warpers(sampling)
    scores = warp(torch.zeros(1, 1, dtype=torch.long), torch.from_numpy(logits)[None])
    found = scores.log_softmax(-1)[0].numpy()
    assert sorted(ids) == np.flatnonzero(np.isfinite(found)).tolist()
    assert np.allclose(found[ids], expected, atol=1e-5)


def test_what_the_model_recommends_is_not_applied():
    """Holds down: generate mixes in the model's own settings, and a top-k of 50 by default."""
    source = load_torch_model(TINY_TARGET)
    source.model.generation_config.top_k = 2
    plain = HfTarget(source, rows=200)
    (answers,) = answers_of(plain, CONVERSATIONS[:1], 200, 1, Sampling(temperature=100))
    assert len({answer.text for answer in answers}) > 60


def test_one_bad_conversation_does_not_lose_the_others(target):
    bad = [[], [Message("user", " ")], [Message("user", "\ud800")], [Message("user", "w " * 4000)]]
    outcomes = answers_of(target, [*bad, CONVERSATIONS[0]], 2, 4, GREEDY)
    assert all(isinstance(one, TargetFailure) for four in outcomes[:4] for one in four)
    assert "holds 2048 tokens" in outcomes[3][0].reason
    assert [len(four) for four in outcomes] == [2] * 5
    assert all(isinstance(one, Answer) for one in outcomes[4])


def test_logits_that_are_not_finite_are_failures_of_their_batch():
    broken = HfTarget(load_torch_model(TINY_TARGET), rows=1)
    broken._model.lm_head.weight.data.fill_(torch.nan)
    ((outcome,),) = answers_of(broken, CONVERSATIONS[:1], 1, 4, WARM)
    assert isinstance(outcome, TargetFailure)
    assert "probability tensor" in outcome.reason


def test_a_closed_target_refuses():
    target = HfTarget(load_torch_model(TINY_TARGET))
    target.close()
    with pytest.raises(DeviceError, match="closed"):
        answers_of(target, CONVERSATIONS, 1, 1, GREEDY)


def test_it_chooses_between_replies_as_the_gguf_does(target, llama):
    """So that a target in torch can judge, too; the rows have different lengths."""
    ours = target.choice_log_probs(CONVERSATIONS, ["Yes", "No"])
    theirs = llama.choice_log_probs(CONVERSATIONS, ["Yes", "No"])
    assert ours == pytest.approx(theirs, abs=0.05)
    with pytest.raises(ContextOverflowError):
        target.require_choice_room([Message("user", "long " * 9000)], ["A", "B"])
    with pytest.raises(InputError, match="beginning of another"):
        target.choice_log_probs(CONVERSATIONS, ["Yes", "Yes, but"])


def test_it_judges_by_its_own_weights(target, llama):
    assert chooser_of(target) is target
    assert chooser_of(GgufTarget(llama)) is llama
    assert chooser_of(Verbatim()) is None
