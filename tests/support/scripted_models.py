"""Scripted models: what they write is given, so what is decided about it can be told."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from alignpro_lite import Request, RhoStar, Sampling
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import Draw, Sampler, stream_seed
from alignpro_lite.decoding.thinking import ThinkingSwitch
from alignpro_lite.errors import ContextOverflowError
from alignpro_lite.prompter.profile import PrompterProfile
from alignpro_lite.prompter.prompter import Rewrite
from alignpro_lite.prompter.template import AUGMENT
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels, draw
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.target.question import Question

PROMPT = "How do I stay safe online?"


class FakePrompter:
    """Writes the given texts in turn; ρ_θ/ρ_sft of text i is `ratios[i]`, in nats.

    With `chances`, it draws each text by the random stream that the real prompter would use. The
    empty hint has the probability `no_hint`.
    """

    sequences = 16
    no_hint = 0.0
    failure = None

    def __init__(
        self, outputs, ratios=None, finish="stop", chances=None, adapter="adapter", strength=0.5
    ):
        self.outputs = outputs
        self.ratios = ratios or [0.0] * len(outputs)
        self.finish = finish
        self.chances = chances
        self.started = []
        self.shown = []
        self.sampling = Sampling()
        self.scored = 0
        self.profile = PrompterProfile(
            "scripted", AUGMENT, Sampling(temperature=0.4), 64, adapter is not None, strength
        )

    @property
    def template(self):
        return self.profile.template

    def fitting(self, prompt, history):
        return tuple(history)

    def encode(self, output):
        assert not output
        return [0]

    def score(self, prompt, outputs, earlier=(), cancellation=None):
        assert outputs == [[0]]
        return [math.log(self.no_hint) if self.no_hint else -math.inf]

    def start(self, prompt, count, sampling, first=0, earlier=()):
        self.started.append((first, count))
        self.shown.append(earlier)
        self.sampling = sampling
        return [self._stream(number) for number in range(first, first + count)]

    def _stream(self, number):
        place = number % len(self.outputs)
        if self.chances is not None:
            logits = np.log(np.array(self.chances, np.float32))
            # Texts differ in their second token: the chain used to share its random number.
            sampler = Sampler(self.sampling, number)
            place = [sampler.draw(logits).token for _ in range(2)][-1]
        text = self.outputs[place]
        rewrite = Rewrite(text, text, (place + 1,), -3.0, -3.0, self.finish)
        return type("Stream", (), {"result": lambda _: rewrite, "cancel": lambda _: None})()

    def reference_score(self, prompt, outputs, earlier=(), cancellation=None):
        self.shown.append(earlier)
        self.scored += len(outputs)
        return [-3.0 - self.ratios[tokens[0] - 1] for tokens in outputs]


class FakeAnswer:
    def __init__(self, text, tokens):
        self.text = text
        self.draws = [Draw(1, 0.0)] * tokens
        self.log_probs = []
        self.finish_reason = "stop"
        self.token_count = tokens
        self.reasoning = ""
        self.thought_only = False

    def __iter__(self):
        yield self.text

    def cancel(self):
        pass


class FakeTarget:
    """Answers every prompt with `prompt#number#seed`, and keeps what it was asked.

    Numbers count the answers to a text over all calls; the seed is that of the answer's tokens.
    """

    def __init__(self, room=math.inf, tokens=3):
        self.thinking = ThinkingSwitch(None)
        self.asked: list[Question] = []
        self.room = room
        self.tokens = tokens
        self.counted = Counter()
        self.room_for = set()

    def require_room(self, question):
        self.room_for.add((question.max_tokens, question.count))
        if len(question.messages[-1].content) > self.room:
            raise ContextOverflowError("Too long.", "Shorten it.")

    def answer_together(self, questions, fresh):
        assert fresh
        self.asked.extend(questions)
        return [
            [self._answer(question, number) for number in range(question.count)]
            for question in questions
        ]

    def _answer(self, question, number):
        sent = question.messages[-1].content
        self.counted[sent] += 1
        seed = stream_seed(question.sampling.seed, question.first + number)
        return FakeAnswer(f"{sent}#{self.counted[sent] - 1}#{seed}", self.tokens)


class FakeScorer:
    """Scores an answer by a function of the prompt it answers and its number."""

    names = ("r",)

    def __init__(self, function):
        self.function = function
        self.calls = 0

    def score(self, exchanges):
        self.calls += 1
        assert all(exchange.prompt == PROMPT for exchange in exchanges), (
            "r* scores the original prompt"
        )
        split = [exchange.answer.rsplit("#", 2) for exchange in exchanges]
        return np.array([[self.function(sent, int(number))] for sent, number, _ in split])

    def close(self):
        pass


def rewarded(worth):
    """A reward with a little noise of its own for every answer."""
    return Reward([FakeScorer(lambda sent, n: worth(sent) + 0.01 * (n % 3))], {"r": 1.0})


class NoisyScorer:
    """Scores an answer by what its prompt is worth, with normal noise from the answer's seed."""

    names = ("r",)

    def __init__(self, worth, deviation):
        self.worth = worth
        self.deviation = deviation

    def score(self, exchanges):
        split = [exchange.answer.rsplit("#", 2) for exchange in exchanges]
        noise = [np.random.default_rng(int(seed)).normal(0, self.deviation) for *_, seed in split]
        return np.array(
            [[self.worth[sent] + luck] for (sent, *_), luck in zip(split, noise, strict=True)]
        )

    def close(self):
        pass


def noisy(worth, deviation):
    return Reward([NoisyScorer(worth, deviation)], {"r": 1.0})


def drawn(prompter, reward=None, target=None, prompt=PROMPT, seed=0, **settings):
    fake: Any = FakeTarget()
    models = DrawModels(prompter, target or fake, reward)
    request = Request(rho_star=RhoStar(**settings), sampling=Sampling(seed=seed))
    return draw(models, protect(prompt), request, Cancellation())
