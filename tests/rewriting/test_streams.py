"""Random streams of a request: whoever draws has one of its own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alignpro_lite import Request, RhoStar, Sampling
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import MAX_SEED, Consumer, stream_seed
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.target.llama import TargetSettings, new_sampler
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_TARGET
from tests.support.scripted_models import FakePrompter

PROMPT = "How do I stay safe online?"


class Spy:
    """Every key that random numbers are drawn by: of numpy, and of llama.cpp."""

    def __init__(self, monkeypatch):
        self.numpy = []
        self.llama = []
        philox = np.random.Philox

        def keyed(key):
            self.numpy.append(tuple(map(int, key)))
            return philox(key=key)

        def seeded(native, drawing):
            self.llama.append(drawing.sampling.seed)
            return new_sampler(native, drawing)

        monkeypatch.setattr(np.random, "Philox", keyed)
        monkeypatch.setattr("alignpro_lite.target.target.new_sampler", seeded)


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
@pytest.mark.parametrize(
    "settings",
    [
        RhoStar(samples=6, guard="strict"),
        RhoStar(samples=6, guard="balanced", answers=3, returns="fresh"),
        RhoStar(samples=4, guard="off"),
        RhoStar(samples="auto", guard="balanced", tolerance=0.9),
        RhoStar(samples=2, guard_answers=20),
    ],
    ids=str,
)
def test_no_two_streams_of_a_request_share_a_key(model, monkeypatch, seed, settings):
    """Holds down: Metropolis-Hastings drew by the random numbers of candidate 1."""
    spy = Spy(monkeypatch)
    request = Request(
        max_tokens=12,
        sampling=Sampling(temperature=1.0, seed=seed),
        rewrite_sampling=Sampling(temperature=2.5),
        rho_star=replace(settings, strength=100.0, trial_tokens=6),
    )
    certificate = model.run(PROMPT, request).certificate
    draws = certificate.scored and settings.guard != "balanced"  # which is a race
    chains = [(seed, Consumer.CHAIN)] if draws else []
    assert Counter(spy.numpy) == Counter([*((seed, n) for n in range(certificate.drawn)), *chains])
    assert [key for key, count in Counter(spy.llama).items() if count > 1] == []
    assert len(spy.llama) > 1


@pytest.mark.parametrize("seed", [0, 1, 12345, MAX_SEED])
def test_every_stream_that_a_request_can_have_is_another_one(seed):
    """64 candidates, 16 answers to each for either purpose, the answer and what follows a trial."""
    llama = [stream_seed(seed, 0), stream_seed(stream_seed(seed, Consumer.CONTINUATION), 0)]
    for purpose in (Consumer.TRIALS, Consumer.JUDGING):
        for owner in range(65):
            own = stream_seed(stream_seed(seed, purpose), owner)
            llama += [stream_seed(own, number) for number in range(16)]
    assert len(set(llama)) == len(llama)


def test_consumers_are_told_apart_from_rewrites_and_answers():
    numbers = [int(consumer) for consumer in Consumer]
    assert len(set(numbers)) == len(numbers)
    assert all(2**31 < number < 2**32 for number in numbers)


@pytest.mark.parametrize("guard_answers", [8, 17, 20, 40])
def test_asks_are_split_to_what_the_engine_holds(model, guard_answers):
    """Holds down: `guard_answers=20` was accepted and always failed, with 16 sequences."""
    request = Request(
        max_tokens=8,
        rewrite_sampling=Sampling(temperature=2.5),
        rho_star=RhoStar(
            samples=2, strength=2.0, guard="strict", guard_answers=guard_answers, trial_tokens=4
        ),
    )
    certificate = model.run(PROMPT, request).certificate
    assert certificate.before.answers == guard_answers


@pytest.mark.parametrize("room", [1, 2, 3.5])
def test_a_prompt_that_fits_is_answered_for_the_guard_too(room):
    """Holds down: its 8 raw answers overflowed a context that holds `room` of them."""
    settings = TargetSettings(context=512, sequences=4, n_gpu_layers=0, gpu=None, threads=1)
    with LlamaTarget(TINY_TARGET, read_header(TINY_TARGET), settings) as target:
        request = Request(max_tokens=48, rho_star=RhoStar(samples=2, trial_tokens=48))
        prompt = "a"
        while tokens_of(target, request, prompt + " a") + room * 48 <= 512:
            prompt += " a"
        reward = Reward([LengthScorer()], {"length": 1.0})
        prompter: Any = FakePrompter(["b", "b" + prompt])
        models = DrawModels(prompter, target, reward)
        choice = draw(models, protect(prompt), request, Cancellation())
    assert choice.certificate.before.answers == 9
    assert choice.certificate.scored >= 1


class LengthScorer:
    names = ("length",)

    def score(self, exchanges):
        return np.array([[float(len(exchange.answer))] for exchange in exchanges])

    def close(self):
        pass


def tokens_of(target, request, prompt):
    return len(target.prompt_tokens(request.question(prompt).messages))


def test_answers_are_numbered_through_all_batches(model):
    """An answer is the same however many are asked for."""
    question = Request(max_tokens=4, sampling=Sampling(seed=3)).question(PROMPT)
    rows = model.target.settings.sequences
    many = model.target.answer(replace(question, count=2 * rows + 1))
    few = model.target.answer(replace(question, count=3))
    texts = ["".join(stream) for stream in many]
    assert len(texts) == 2 * rows + 1
    assert texts[:3] == ["".join(stream) for stream in few]
