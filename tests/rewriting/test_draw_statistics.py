"""Whole draws by scripted models, many of them: what is drawn, and what is said about it."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from alignpro_lite import Budget, Sampling
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting import candidates
from alignpro_lite.rewriting.pool import MOST_SAMPLES
from tests.support.scripted_models import PROMPT, FakePrompter, FakeScorer, drawn, noisy

TEXTS = [f"Explain online safety in {word}." for word in ("steps", "detail", "brief", "verse")]
CHI_SQUARE_999 = {1: 10.828, 2: 13.816, 3: 16.266}
"""Quantiles by degrees of freedom, as in any printed table."""


@pytest.fixture(autouse=True)
def no_refusals(monkeypatch):
    """Detecting the language of every candidate would take most of the time."""
    monkeypatch.setattr(candidates, "refusal_of", lambda protected, rewrite: None)


def constant(sent, number):
    return 0.25


def counts(draws, prompter, reward, **settings):
    """How often each text is drawn, whatever the guard says."""
    found = [
        drawn(prompter, reward, seed=seed, guard="off", **settings).rewrite.text
        for seed in range(draws)
    ]
    return np.array([found.count(text) for text in prompter.outputs])


def chi_square(observed, law):
    expected = np.asarray(law) * observed.sum()
    return float(((observed - expected) ** 2 / expected).sum())


def law_of_chain(chances, weights, size):
    """Exact probability that a chain over `size` draws from `chances` ends at each text."""
    law = np.zeros(len(chances))
    for path in product(range(len(chances)), repeat=size):
        here = np.zeros(len(chances))
        here[path[0]] = math.prod(chances[place] for place in path)
        for new in path[1:]:
            accepts = here * np.minimum(1, weights[new] / np.asarray(weights))
            here -= accepts
            here[new] += accepts.sum()
        law += here
    return law


@pytest.mark.parametrize(
    ("chances", "weights", "size"),
    [
        ((0.5, 0.5), (1, 3), 2),
        ((0.5, 0.5), (1, 9), 2),
        ((0.3, 0.7), (4, 1), 3),
        ((0.2, 0.3, 0.5), (1, 2, 4), 2),
        ((0.25, 0.25, 0.25, 0.25), (1, 1, 5, 1), 3),
    ],
)
def test_a_draw_follows_its_weights(chances, weights, size):
    """Holds down: the chain shared the random numbers of candidate 1: 0.583, right is 0.667."""
    ratios = [-math.log(weight) for weight in weights]
    prompter = FakePrompter(TEXTS[: len(chances)], ratios, chances=chances)
    observed = counts(800, prompter, Reward([FakeScorer(constant)], {"r": 1.0}), samples=size)
    law = law_of_chain(chances, weights, size)
    assert chi_square(observed, law) < CHI_SQUARE_999[len(chances) - 1]


WORTH = dict(zip(TEXTS, (0.0, 0.3, -0.2, 0.5), strict=True)) | {PROMPT: 0.1}
CHANCES = (0.4, 0.3, 0.2, 0.1)
STAR = np.array(CHANCES) * np.exp([WORTH[text] / 0.5 for text in TEXTS])
STAR /= STAR.sum()


@pytest.mark.parametrize("deviation", [0.0, 0.25])
def test_draws_pass_a_chi_square_test_against_rho_star(deviation):
    """λ = 0.5. Noise of half a λ an answer is gone where each text has many of them."""
    prompter = FakePrompter(TEXTS, chances=CHANCES)
    observed = counts(300, prompter, noisy(WORTH, deviation), samples=32, strength=0.5)
    assert chi_square(observed, STAR) < CHI_SQUARE_999[3]


def test_that_chi_square_test_can_fail():
    prompter = FakePrompter(TEXTS, chances=CHANCES)
    observed = counts(300, prompter, noisy(WORTH, 0.0), samples=1, strength=0.5)
    assert chi_square(observed, STAR) > CHI_SQUARE_999[3]


def measured_model(random):
    """64 different rewrites as the default models have them: R varies by 0.034."""
    texts = [f"Explain online safety in {number} words." for number in range(64)]
    worth = dict(zip(texts, random.normal(0.0, 0.034, 64), strict=True)) | {PROMPT: 0.0}
    return FakePrompter(texts), worth


def test_auto_stops_because_it_is_close_and_not_because_it_must():
    """Holds down: at the default λ it reached its tolerance in 1 of 1,000 prompts."""
    random = np.random.default_rng(0)
    found = []
    for seed in range(40):
        prompter, worth = measured_model(random)
        reward = noisy(worth, 0.11)
        choice = drawn(prompter, reward, seed=seed, samples="auto", strength=0.02, guard="off")
        found.append(choice.certificate)
    close = [certificate.diagnostics.distance <= 0.1 for certificate in found]
    assert np.mean(close) > 0.8
    assert np.median([certificate.drawn for certificate in found]) < MOST_SAMPLES


@pytest.mark.parametrize(("samples", "answers"), [(1, 16), (3, 2)])
def test_the_bound_of_the_gain_covers_after_all_that_went_before(samples, answers):
    """Holds down: answers to the prompt judged a rewrite that they had let pass before, so that the
    bound was too high in one of ten draws instead of one of twenty."""
    worth = dict.fromkeys([*TEXTS, PROMPT], 0.0)
    found = [
        drawn(
            FakePrompter(TEXTS),
            noisy(worth, 0.11),
            seed=seed,
            samples=samples,
            answers=answers,
            guard="strict",
            strength=0.02,
        ).certificate.gain
        for seed in range(600)
    ]
    assert None not in found
    assert np.mean([gain.lower <= 0 for gain in found]) > 0.932  # 0.95 less two standard errors


def test_a_risk_level_sets_gain_against_harm():
    """On prompts whose rewrites gain 0.067 ± 0.075, as measured on the default models."""
    random = np.random.default_rng(3)
    gains = {"strict": [], "balanced": [], "off": []}
    for seed in range(300):
        prompter, worth = measured_model(random)
        offset = random.normal(0.067, 0.067)
        worth = {text: value + offset for text, value in worth.items()} | {PROMPT: 0.0}
        for guard, found in gains.items():
            choice = drawn(
                prompter, noisy(worth, 0.11), seed=seed, samples=2, strength=0.02, guard=guard
            )
            found.append(worth[choice.sent])
    mean = {guard: np.mean(found) for guard, found in gains.items()}
    harmed = {guard: np.mean(np.array(found) < 0) for guard, found in gains.items()}
    assert mean["strict"] + 0.015 < mean["balanced"]
    assert mean["off"] < mean["balanced"]
    assert harmed["strict"] < 0.02 < harmed["balanced"] < 0.09 < harmed["off"]


def test_sampling_needs_no_reward_to_repeat():
    """The same seed draws the same text, another one may not."""
    prompter = FakePrompter(TEXTS, chances=CHANCES)
    first, second = (drawn(prompter, seed=5).sent for _ in range(2))
    assert first == second
    assert len({drawn(prompter, seed=seed).sent for seed in range(20)}) > 1
    assert prompter.sampling == Sampling(temperature=0.4, seed=19)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strength", [1e-300, 1e-100, 1e-6, 1e3])
@pytest.mark.parametrize("samples", [1, 16])
@pytest.mark.parametrize("deviation", [0.0, 1.0])
def test_any_strength_draws(strength, samples, deviation):
    """Holds down: at a tiny λ, the errors of log Z did not fit into a float."""
    worth = dict.fromkeys([*TEXTS, PROMPT], 0.3)
    choice = drawn(FakePrompter(TEXTS), noisy(worth, deviation), samples=samples, strength=strength)
    found = choice.certificate.diagnostics
    assert 1 <= found.ess <= samples
    assert not any(map(math.isnan, (found.kl, found.log_z, found.log_z_error, found.noise)))


@pytest.mark.filterwarnings("error")
def test_a_budget_of_time_may_have_no_end():
    """Holds down: a timer cannot wait for ever, and printed a traceback."""
    prompter, reward = FakePrompter(TEXTS), noisy(dict.fromkeys([*TEXTS, PROMPT], 0.3), 0.1)
    draws = [
        drawn(prompter, reward, samples=4, budget=Budget(seconds=seconds)).certificate.drawn
        for seconds in (math.inf, 1e300, None)
    ]
    assert draws == [4, 4, 4]
