"""Variance components: by hand, against mean squares, without bias, and with honest intervals."""

from __future__ import annotations

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.components import (
    crossed_components,
    jackknife,
    nested_components,
    student_mean,
    student_quantile,
)


def normal(random, size):
    return random.normal(size=size)


def skewed(random, size):
    return random.exponential(size=size) - 1


# --- Student's distribution and the jackknife


@pytest.mark.parametrize(
    ("degrees", "expected", "error"),
    [
        (1, 12.7062, 1e-5),
        (2, 4.3027, 0.01),
        (3, 3.1824, 2e-3),
        (4, 2.7764, 5e-4),
        (23, 2.0687, 5e-5),
    ],
)
def test_the_quantile_is_that_of_the_tables(degrees, expected, error):
    assert student_quantile(degrees) == pytest.approx(expected, rel=error)


def test_the_interval_of_a_mean_is_the_classical_one():
    """Mean 3, standard error sqrt(2.5 / 5), 4 degrees of freedom."""
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    (jackknifed,) = jackknife(lambda kept: values[kept].mean(keepdims=True), 5)
    half = 2.7764 * np.sqrt(0.5)
    for found in (student_mean(values), jackknifed):
        ends = (found.value, found.low, found.high)
        assert ends == pytest.approx((3, 3 - half, 3 + half), rel=1e-3)


def test_the_jackknife_leaves_out_each_prompt_once():
    seen = []

    def statistic(kept):
        seen.append(list(kept))
        return np.zeros(1)

    jackknife(statistic, 3)
    assert seen == [[0, 1, 2], [1, 2], [0, 2], [0, 1]]


# --- rewrites that all prompts share


def test_crossed_components_by_hand():
    """Cell means: rows (0, 2), (2, 4), (4, 12), each from two answers that differ by 2."""
    means = np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 12.0]])
    found = crossed_components(np.stack([means - 1, means + 1], axis=2))
    # Rewrite means 2 and 6, prompt means 1, 3 and 8; deviations from additivity 1, 1, 2 (±).
    answer = 2.0
    mixed = 2 * (2 * (1 + 1 + 4)) / 2
    rewrite = 2 * 3 * (4 + 4) / 1
    prompt = 2 * 2 * (9 + 1 + 16) / 2
    assert found.answer.value == pytest.approx(answer)
    assert found.interaction is not None
    assert found.interaction.value == pytest.approx((mixed - answer) / 2)
    assert found.rewrite.value == pytest.approx((rewrite - mixed) / 6)
    assert found.prompt.value == pytest.approx((prompt - mixed) / 4)


def mean_squares(rewards):
    """Expected mean squares of the two-way layout, solved (Searle and others 1992, section 4.5)."""
    prompts, rewrites, answers = rewards.shape
    means = rewards.mean(axis=2)
    rows, columns, mean = means.mean(axis=1), means.mean(axis=0), means.mean()
    within = rewards.var(axis=2, ddof=1).mean()
    rest = means - rows[:, None] - columns + mean
    mixed = answers * (rest**2).sum() / ((prompts - 1) * (rewrites - 1))
    column = prompts * answers * ((columns - mean) ** 2).sum() / (rewrites - 1)
    row = rewrites * answers * ((rows - mean) ** 2).sum() / (prompts - 1)
    return (
        (row - mixed) / (rewrites * answers),
        (column - mixed) / (prompts * answers),
        (mixed - within) / answers,
        within,
    )


@pytest.mark.parametrize("shape", [(3, 2, 2), (5, 3, 2), (8, 6, 4)])
def test_crossed_components_are_those_of_the_mean_squares(shape):
    rewards = np.random.default_rng(0).normal(size=shape)
    found = crossed_components(rewards)
    assert found.interaction is not None
    values = (found.prompt, found.rewrite, found.interaction, found.answer)
    assert [part.value for part in values] == pytest.approx(mean_squares(rewards))


@pytest.mark.parametrize("draw", [normal, skewed])
def test_intervals_of_crossed_components_cover(draw):
    """24 prompts, 7 rewrites, 4 answers; the variance of few skewed prompts is the hardest."""
    random, runs = np.random.default_rng(3), 150
    effects = np.array([0.0, 0.1, -0.1, 0.2, -0.2, 0.1, -0.1])
    truth = np.array([0.09, effects.var(ddof=1), 0.01, 0.09])
    hits, sums = np.zeros(4), np.zeros(4)
    for _ in range(runs):
        mixed = 0.1 * random.normal(size=(24, 7, 1))
        rewards = 0.3 * draw(random, (24, 1, 1)) + effects[:, None] + mixed
        found = crossed_components(rewards + 0.3 * draw(random, (24, 7, 4)))
        assert found.interaction is not None
        parts = (found.prompt, found.rewrite, found.interaction, found.answer)
        hits += [part.low <= true <= part.high for part, true in zip(parts, truth, strict=True)]
        sums += [part.value for part in parts]
    assert sums / runs == pytest.approx(truth, rel=0.12)
    assert (hits / runs)[1:].min() >= 0.9
    assert (hits / runs)[0] >= (0.85 if draw is normal else 0.7)


def test_noise_alone_is_no_interaction():
    """An interval that leaves out 0 for pure noise would promise what is not there."""
    random, found = np.random.default_rng(5), []
    for _ in range(150):
        parts = crossed_components(random.normal(size=(24, 7, 4)))
        assert parts.interaction is not None
        found.append((parts.rewrite.low <= 0, parts.interaction.low <= 0))
    assert np.mean(found, axis=0).min() >= 0.95


@pytest.mark.parametrize("shape", [(2, 2, 2), (3, 1, 2), (3, 2, 1)])
def test_too_few_of_anything_are_refused(shape):
    with pytest.raises(InputError, match="at least"):
        crossed_components(np.zeros(shape))


# --- rewrites of a prompt's own


def test_nested_components_by_hand():
    """Each prompt has two different rewrites; answers of either differ by 2, so its variance is 2.

    Means of the rewrites: (0, 4), (1, 1), (5, 9). Their variances are 8, 0, 8, of which 2 / 2 is
    noise; the means of the prompts are 2, 1 and 7, whose error is (rewrite + 1) / 2.
    """
    tables = [
        np.array([[first - 1, first + 1], [second - 1, second + 1]])
        for first, second in ((0.0, 4.0), (1.0, 1.0), (5.0, 9.0))
    ]
    found = nested_components(tables, [np.array([1, 1])] * 3)
    rewrite = 16 / 3 - 1
    assert found.answer.value == pytest.approx(2)
    assert found.rewrite.value == pytest.approx(rewrite)
    assert found.interaction is None
    assert found.prompt.value == pytest.approx(np.var([2, 1, 7], ddof=1) - (rewrite + 1) / 2)


def test_nested_components_are_those_of_mean_squares_where_all_rewrites_differ():
    rewards = np.random.default_rng(1).normal(size=(6, 4, 3))
    found = nested_components(list(rewards), [np.ones(4, np.int64)] * 6)
    means = rewards.mean(axis=2)
    within = rewards.var(axis=2, ddof=1).mean()
    own = 3 * means.var(axis=1, ddof=1).mean()
    row = 12 * means.mean(axis=1).var(ddof=1)
    expected = [(row - own) / 12, (own - within) / 3, within]
    parts = (found.prompt, found.rewrite, found.answer)
    assert [part.value for part in parts] == pytest.approx(expected)


def test_rewrites_that_are_drawn_again_share_their_answers_and_leave_no_bias():
    """Two of three draws are often the same text, whose answers are drawn once."""
    random, sums, runs = np.random.default_rng(2), np.zeros(3), 300
    law, worth = np.array([0.6, 0.3, 0.1]), np.array([0.0, 1.0, 2.0])
    truth = law @ worth**2 - (law @ worth) ** 2
    for _ in range(runs):
        tables, counts = [], []
        for _ in range(12):
            counts.append(random.multinomial(3, law))
            noise = random.normal(size=(3, 2)) * np.array([[0.5], [1.0], [2.0]])
            tables.append(2 * random.normal() + worth[:, None] + noise)
        found = nested_components(tables, counts)
        sums += [found.prompt.value, found.rewrite.value, found.answer.value]
    answer = law @ np.array([0.5, 1.0, 2.0]) ** 2
    assert sums / runs == pytest.approx([4, truth, answer], rel=0.08)


def test_a_rewrite_that_was_never_drawn_does_not_count():
    random = np.random.default_rng(4)
    tables = [random.normal(size=(3, 2)) for _ in range(5)]
    counts = [np.array([2, 1, 0])] * 5
    without = [table[:2] for table in tables]
    assert nested_components(tables, counts) == nested_components(without, [np.array([2, 1])] * 5)


@pytest.mark.parametrize(
    ("tables", "counts"),
    [
        ([np.zeros((1, 2))] * 3, [np.array([1])] * 3),
        ([np.zeros((2, 1))] * 3, [np.array([1, 1])] * 3),
        ([np.zeros((2, 2))] * 2, [np.array([1, 1])] * 2),
    ],
)
def test_too_few_draws_answers_or_prompts_are_refused(tables, counts):
    with pytest.raises(InputError, match="at least"):
        nested_components(tables, counts)
