"""Comparisons of many arms: numbers by hand, levels, coverage, and what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.errors import InputError
from alignpro_lite.measure import comparisons, statistics
from alignpro_lite.measure.statistics import Estimate, answer_win_rate, bootstrap_mean, wilson

FIRST = np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
SECOND = np.array([[0.0, 2.0], [2.0, 2.0], [3.0, 5.0]])


@pytest.fixture
def few(monkeypatch):
    """Enough resamples for a simulation."""
    monkeypatch.setattr(comparisons, "RESAMPLES", 1000)
    monkeypatch.setattr(statistics, "RESAMPLES", 1000)


def matrices(prompts: int, answers: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, (prompts, answers), elements=st.integers(-4, 4).map(float))


def numbers(estimate: Estimate | None) -> tuple[float, float, float]:
    assert estimate is not None
    return estimate.value, estimate.low, estimate.high


# --- wins, ties and losses


def test_wins_ties_and_losses_by_hand():
    """Means of a prompt: 2, 2, 2 against 1, 2, 4."""
    assert comparisons.win_tie_loss(FIRST, SECOND) == (wilson(1, 3),) * 3


def test_the_last_digit_of_a_mean_decides_nothing():
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1."""
    rewards = np.array([[0.1, 0.2, 0.3]])
    assert rewards.mean() != rewards[:, ::-1].copy().mean()
    _, tie, _ = comparisons.win_tie_loss(rewards, rewards[:, ::-1].copy())
    assert tie.value == 1


@settings(max_examples=30, deadline=None)
@given(matrices(6, 3), matrices(6, 3))
def test_wins_ties_and_losses_sum_to_one_and_swap(first, second):
    there, back = comparisons.win_tie_loss(first, second), comparisons.win_tie_loss(second, first)
    assert sum(share.value for share in there) == pytest.approx(1)
    assert there == back[::-1]


# --- sign flips


def test_a_p_value_by_hand(few):
    """Of the 16 signs of 1, 2, 3, 4, two have a sum of 10 or -10; of the found 4, ten do."""
    assert comparisons.sign_flip_p(np.array([1.0, 2, 3, 4]), 0) == pytest.approx(2 / 16, abs=0.03)
    values = np.array([1.0, -3, 2, 4])
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=4)]
    exact = np.mean([total >= 4 for total in sums])
    assert comparisons.sign_flip_p(values, 0) == pytest.approx(exact, abs=0.04)


def test_a_p_value_is_never_zero_and_no_difference_is_no_evidence():
    assert comparisons.sign_flip_p(np.full(60, 0.1), 0) == 1 / (statistics.RESAMPLES + 1)
    assert comparisons.sign_flip_p(np.zeros(8), 0) == 1


@settings(max_examples=30, deadline=None)
@given(arrays(float, 7, elements=st.floats(-4, 4)), st.integers(0, 9))
def test_a_p_value_knows_neither_direction_nor_unit(values, seed):
    p_value = comparisons.sign_flip_p(values, seed)
    assert 0 < p_value <= 1
    assert comparisons.sign_flip_p(-values, seed) == p_value
    assert comparisons.sign_flip_p(values * 1024, seed) == p_value


@pytest.mark.parametrize("prompts", [6, 40])
def test_a_p_value_holds_its_level(few, prompts):
    """Differences of heavy tails; of 600 tests at 0.1, the count's deviation is 7."""
    source = np.random.default_rng(2)
    draws = source.standard_t(3, (600, prompts))
    found = np.array([comparisons.sign_flip_p(row, seed) for seed, row in enumerate(draws)])
    assert 0.06 <= (found <= 0.1).mean() <= 0.135


def test_a_p_value_finds_what_an_interval_finds(few):
    source = np.random.default_rng(3)
    values = source.normal(0.5, 1, 60)
    assert bootstrap_mean(values, 0).low > 0
    assert comparisons.sign_flip_p(values, 0) < 0.01


# --- Holm


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, none below the one before."""
    assert comparisons.holm_adjusted([0.04, 0.01, 0.03, 0.02]) == pytest.approx(
        [0.06, 0.04, 0.06, 0.06]
    )
    assert comparisons.holm_adjusted([0.5, 0.6]) == [1.0, 1.0]
    assert comparisons.holm_adjusted([0.2]) == [0.2]
    assert comparisons.holm_adjusted([]) == []


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms())
def test_holm_keeps_order_and_never_lowers(values, random):
    found = comparisons.holm_adjusted(values)
    for value, adjusted in zip(values, found, strict=True):
        assert value <= adjusted <= min(1, len(values) * value)
    in_order = [adjusted for _, adjusted in sorted(zip(values, found, strict=True))]
    assert in_order == sorted(in_order)
    places = list(range(len(values)))
    random.shuffle(places)
    assert comparisons.holm_adjusted([values[place] for place in places]) == [
        found[at] for at in places
    ]


def test_holm_rejects_a_true_hypothesis_no_more_often_than_it_says():
    source = np.random.default_rng(4)
    draws = source.random((1500, 6))
    draws[:, :2] *= 0.001  # two differences are real
    found = [min(comparisons.holm_adjusted(list(row))[2:]) <= 0.1 for row in draws]
    assert 0.06 <= np.mean(found) <= 0.12


# --- the oracle's gain


def test_a_share_of_the_oracle_by_hand():
    """Gains over 0, 0, 0: 1, 2, 3 against 2, 4, 6, so half of it in every resample."""
    baseline, oracle = np.zeros((3, 2)), np.array([[2.0, 2], [4, 4], [6, 6]])
    found = comparisons.recovered_share(oracle / 2, baseline, oracle, seed=0)
    assert numbers(found) == pytest.approx((0.5, 0.5, 0.5))
    assert numbers(comparisons.recovered_share(oracle, baseline, oracle, 0)) == (1, 1, 1)
    assert numbers(comparisons.recovered_share(baseline, baseline, oracle, 0)) == (0, 0, 0)
    assert comparisons.recovered_share(-oracle, baseline, oracle, 0).value == -1


def test_a_share_of_what_may_be_nothing_is_none():
    baseline = np.zeros((3, 1))
    for oracle in ([[-1.0], [0], [5]], [[-1.0], [-2], [-3]], [[0.0], [0], [0]]):
        assert comparisons.recovered_share(baseline, baseline, np.array(oracle), 0) is None


def test_an_oracle_just_above_nothing_leaves_a_wide_but_finite_interval():
    """Some resamples of it are below 0, where a plain ratio would change its sign."""
    source = np.random.default_rng(8)
    baseline, oracle = np.zeros((30, 1)), source.normal(0, 1, (30, 1))
    oracle += 0.38 - oracle.mean()
    assert 0 < bootstrap_mean(oracle[:, 0], 0).low < 0.05
    found = comparisons.recovered_share(np.full((30, 1), 0.2), baseline, oracle, 0)
    assert 0 < found.low < found.value < 1 < found.high < math.inf


def test_a_share_of_the_oracle_is_covered_as_often_as_it_says(few):
    source = np.random.default_rng(9)
    trials, covered = 300, 0
    for trial in range(trials):
        baseline = source.normal(0, 2, (60, 4)) + source.normal(0, 2, (60, 1))
        gain = source.normal(1, 1, (60, 1))
        system = baseline + 0.4 * gain + source.normal(0, 1, (60, 4))
        found = comparisons.recovered_share(system, baseline, baseline + gain, seed=trial)
        covered += found.low <= 0.4 <= found.high
    assert 0.91 <= covered / trials <= 0.98


# --- between prompts


def test_the_variance_between_prompts_by_hand():
    """Means 1, 5: variance 8; within 2 and 2, so noise 2 / 2."""
    assert comparisons.between_prompt_variance(np.array([[0.0, 2], [4, 6]])) == pytest.approx(7)
    assert comparisons.between_prompt_variance(np.array([[0.0, 9], [9, 0]])) == 0


def test_the_variance_between_prompts_is_free_of_noise():
    source = np.random.default_rng(10)
    rewards = source.normal(0, 1, (4000, 1)) + source.normal(0, 3, (4000, 4))
    assert comparisons.between_prompt_variance(rewards) == pytest.approx(1, abs=0.25)
    assert rewards.mean(axis=1).var() > 3


# --- judges


def test_agreement_by_hand():
    """Same and opposite; a tie of one and a tie of both."""
    first, second = np.array([[1.0, 2], [0, 0]]), np.array([[0.1, -9], [5, 0]])
    assert comparisons.judge_agreement(first, second, 0) == Estimate(0.5, 0.5, 0.5)
    assert comparisons.judge_agreement(first, first, 0).value == 0.75


@settings(max_examples=30)
@given(
    arrays(float, (4, 2), elements=st.floats(-3, 3)),
    arrays(float, (4, 2), elements=st.floats(-3, 3)),
)
def test_agreement_is_mutual_and_turns_with_a_judge(first, second):
    found = comparisons.judge_agreement(first, second, 0)
    assert found == comparisons.judge_agreement(second, first, 0)
    assert found.value == pytest.approx(1 - comparisons.judge_agreement(-first, second, 0).value)


# --- the matrix


def test_a_win_matrix_by_hand():
    """As in test_statistics: 3/4, 1/2 and 1/4 of the pairs of each prompt."""
    found = comparisons.answer_win_matrix([FIRST, SECOND, FIRST + 9])
    np.testing.assert_allclose(found, [[0.5, 0.5, 0], [0.5, 0.5, 0], [1, 1, 0.5]])
    np.testing.assert_array_equal(comparisons.answer_win_matrix([FIRST]), [[0.5]])


@settings(max_examples=20, deadline=None)
@given(st.lists(matrices(4, 2), min_size=1, max_size=4))
def test_a_win_matrix_is_made_of_answer_win_rates(arms):
    found = comparisons.answer_win_matrix(arms)
    np.testing.assert_allclose(found + found.T, 1)
    for row, column in itertools.product(range(len(arms)), repeat=2):
        rate = answer_win_rate(arms[row], arms[column], 0).value
        assert found[row, column] == pytest.approx(rate)


# --- what is refused


def _spoiled(value: float) -> np.ndarray:
    return np.array([[value, 0.0], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: comparisons.win_tie_loss(FIRST, SECOND[:2]), r"found \(3, 2\), \(2, 2\)"),
        (lambda: comparisons.win_tie_loss(FIRST[0], SECOND[0]), r"shape \(prompts, answers\)"),
        (lambda: comparisons.win_tie_loss(np.zeros((3, 0)), np.zeros((3, 0))), "found"),
        (lambda: comparisons.win_tie_loss(FIRST, _spoiled(math.nan)), "found 1 of 12 that are not"),
        (lambda: comparisons.sign_flip_p(np.array([]), 0), "at least 1 prompts"),
        (lambda: comparisons.sign_flip_p(np.array([math.inf]), 0), "finite"),
        (lambda: comparisons.holm_adjusted([0.1, 1.1]), "between 0 and 1"),
        (lambda: comparisons.holm_adjusted([math.nan]), "between 0 and 1"),
        (lambda: comparisons.recovered_share(FIRST, SECOND, FIRST[:, :1], 0), "equal shape"),
        (
            lambda: comparisons.recovered_share(FIRST[:1], FIRST[:1], FIRST[:1], 0),
            "at least 2 prompts",
        ),
        (lambda: comparisons.between_prompt_variance(FIRST[:1]), "at least 2 prompts"),
        (lambda: comparisons.between_prompt_variance(FIRST[:, :1]), "at least 2 answers"),
        (lambda: comparisons.judge_agreement(FIRST[0], FIRST[0], 0), r"shape \(prompts, pairs\)"),
        (lambda: comparisons.answer_win_matrix([]), "found none"),
        (lambda: comparisons.answer_win_matrix([FIRST, _spoiled(math.inf)]), "finite"),
    ],
)
def test_arms_that_cannot_be_compared_are_refused(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert caught.value.cure
