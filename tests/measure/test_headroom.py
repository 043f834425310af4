"""The headroom: worlds whose answer is known, coverage, and that luck is not taken for gain."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.headroom import Headroom, Tried, measure_headroom
from alignpro_lite.measure.statistics import Estimate

CONSTANTS, OWN, ANSWERS = 5, 4, 4
NOISE = 0.3


def world(random, effects, special, own=0.0, prompts=24):
    """Prompts in which constants are worth `effects`, and everything varies by `special` besides.

    Returns what was tried, and the true gain of each rewrite over the prompt itself.
    """
    tried, truth = [], []
    for _ in range(prompts):
        worth = np.concatenate([[0.0], effects, np.full(OWN, own)])
        worth = worth + special * random.normal(size=worth.size)
        level = 0.3 * random.normal()
        rewards = level + worth[:, None] + NOISE * random.normal(size=(worth.size, ANSWERS))
        written = np.concatenate([np.zeros(1 + CONSTANTS, np.int64), np.ones(OWN, np.int64)])
        more = level + worth[0] + NOISE * random.normal(size=2 * ANSWERS)
        tried.append(Tried(rewards, written[None], more))
        truth.append(worth - worth[0])
    return tried, np.array(truth)


def many(effects, special, own=0.0, runs=120, prompts=24):
    random = np.random.default_rng(0)
    worlds = [world(random, np.array(effects), special, own, prompts) for _ in range(runs)]
    return [(measure_headroom(tried, CONSTANTS), truth) for tried, truth in worlds]


def verdicts(found):
    return Counter(headroom.verdict(headroom.smallest) for headroom, _ in found)


def test_by_hand():
    """Without noise: the second hint gains 2 everywhere, and the prompter's rewrite 3 on half."""
    rewards = [
        np.array([[0.0] * 2, [1.0] * 2, [2.0] * 2, [3.0 * (n % 4 < 2)] * 2]) for n in range(8)
    ]
    tried = [Tried(row, np.array([[0, 0, 0, 2]]), np.zeros(2)) for row in rewards]
    found = measure_headroom(tried, 2)
    assert found.calls == 8 * (8 + 2)
    assert found.best == 1
    assert [gain.value for gain in found.constants] == [1, 2]
    assert (found.constant.value, found.sources[0].value) == (2, 1.5)
    assert found.apparent.value == 2.5
    assert found.shared.answer.value == 0


def test_what_is_special_about_a_prompt_is_found():
    found = many([0, 0.02, 0.05, -0.02, -0.05], special=0.25)
    assert verdicts(found)["choice"] >= 100
    extra = np.mean([headroom.extra.value for headroom, _ in found])
    perfect = np.mean([truth.max(axis=1).mean() for _, truth in found])
    assert 0.5 * perfect < extra < perfect


def test_luck_is_not_taken_for_gain():
    """The best of ten rewrites by four answers seems to gain much where no rewrite differs."""
    found = many([0] * CONSTANTS, special=0.0)
    apparent, learnable, chosen, extra = (
        np.mean([getattr(headroom, name).value for headroom, _ in found])
        for name in ("apparent", "learnable", "chosen", "extra")
    )
    assert apparent > 0.15
    assert abs(learnable) < 0.03
    assert abs(chosen) < 0.015
    assert abs(extra) < 0.015
    assert np.mean([headroom.learnable_share for headroom, _ in found]) < 0.25
    wrong = verdicts(found)
    assert wrong["choice"] + wrong["constant"] + wrong["open"] <= 12


def test_a_constant_that_is_enough_is_found():
    found = verdicts(many([0, 0, 0.3, 0, 0], special=0.0))
    assert found["constant"] >= 100
    assert found["choice"] <= 6


def test_rewriting_that_hurts_is_found():
    found = verdicts(many([-0.3] * CONSTANTS, special=0.0, own=-0.3))
    assert found["hurts"] >= 100


def test_gains_of_the_choice_cover_what_it_is_worth():
    """The choice among 9 rewrites; its worth is its mean over many worlds."""
    found = many([0, 0.05, 0.1, -0.05, -0.1], special=0.15)
    worth = np.mean([headroom.chosen.value for headroom, _ in found])
    covered = [headroom.chosen.low <= worth <= headroom.chosen.high for headroom, _ in found]
    assert np.mean(covered) >= 0.9


def test_gains_of_the_best_constant_cover_what_it_is_worth():
    """Worth is what those constants gain anywhere that the halves of the prompts have chosen."""
    random, covered = np.random.default_rng(6), []
    effects = np.array([0, 0.05, 0.1, -0.05, -0.1])
    for _ in range(150):
        tried, _ = world(random, effects, 0.15)
        gains = np.array([row.gains[1 : 1 + CONSTANTS] for row in tried])
        chosen = [gains[half::2].mean(axis=0).argmax() for half in (0, 1)]
        constant = measure_headroom(tried, CONSTANTS).constant
        covered.append(constant.low <= effects[chosen].mean() <= constant.high)
    assert np.mean(covered) >= 0.9


def test_the_choice_falls_back_to_the_best_constant_and_not_to_noise():
    """A bare choice by two answers of ten rewrites was worse than a constant that is known."""
    found = many([0, 0, 0.2, 0, 0], special=0.0)
    assert np.mean([headroom.extra.value for headroom, _ in found]) > -0.01


def test_reliability_is_the_share_that_is_real():
    """The variances are 0.25² and 0.3² / 4."""
    found = many([0] * CONSTANTS, special=0.25, runs=60, prompts=48)
    share = np.mean([headroom.reliability for headroom, _ in found])
    assert share == pytest.approx(0.25**2 / (0.25**2 + 0.3**2 / 4), abs=0.03)
    answers = [headroom.reliable_answers for headroom, _ in found]
    needed = [number for number in answers if number is not None]
    assert np.median(needed) == pytest.approx(4 * 0.3**2 / 0.25**2, rel=0.15)


def test_calls_narrow_the_interval_to_the_stated_error():
    random = np.random.default_rng(1)
    few, _ = world(random, np.zeros(CONSTANTS), 0.2, prompts=16)
    many_more, _ = world(random, np.zeros(CONSTANTS), 0.2, prompts=256)
    before, after = measure_headroom(few, CONSTANTS), measure_headroom(many_more, CONSTANTS)
    widest = max(gain.high - gain.low for gain in (after.constant, after.extra)) / 2
    assert before.calls_for(widest) == pytest.approx(after.calls, rel=0.5)


@pytest.fixture(scope="module")
def found() -> Headroom:
    tried, _ = world(np.random.default_rng(0), np.zeros(CONSTANTS), 0.1)
    return measure_headroom(tried, CONSTANTS)


def around(value, half):
    return Estimate(value, value - half, value + half)


@pytest.mark.parametrize(
    ("constant", "extra", "chosen", "verdict"),
    [
        (around(0.04, 0.01), around(0.02, 0.03), around(0.06, 0.03), "constant"),
        (around(0.04, 0.01), around(0.05, 0.02), around(0.09, 0.02), "choice"),
        (around(0.04, 0.01), around(0.05, 0.06), around(0.09, 0.06), "open"),
        (around(0.04, 0.01), around(0.0, 0.3), around(0.04, 0.3), "open"),
        (around(0.01, 0.05), around(0.05, 0.06), around(0.06, 0.05), "open"),
        (around(-0.04, 0.01), around(0.04, 0.01), around(0.0, 0.01), "hurts"),
        (around(0.0, 0.01), around(0.0, 0.01), around(0.0, 0.01), "nothing"),
        (around(0.0, 0.1), around(0.0, 0.1), around(0.0, 0.1), "noisy"),
    ],
)
def test_verdicts(found, constant, extra, chosen, verdict):
    assert replace(found, constant=constant, extra=extra, chosen=chosen).verdict(0.03) == verdict


def test_too_few_prompts_are_refused():
    tried, _ = world(np.random.default_rng(0), np.zeros(CONSTANTS), 0.1, prompts=3)
    with pytest.raises(InputError, match="at least 4 prompts"):
        measure_headroom(tried, CONSTANTS)
