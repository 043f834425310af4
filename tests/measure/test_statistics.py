"""The evaluation statistics: numbers computed by hand, coverage, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alignpro_lite.errors import InputError
from alignpro_lite.measure import statistics as stats

FIRST = np.array([[1.0, 3.0], [2.0, 2.0], [0.0, 4.0]])
SECOND = np.array([[0.0, 2.0], [2.0, 2.0], [3.0, 5.0]])


def rewards(prompts: int, answers: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(float, (prompts, answers), elements=st.integers(-4, 4).map(float))


def test_every_number_of_a_comparison_by_hand():
    """Means of a prompt: 2, 2, 2 against 1, 2, 4; variances: 2, 0, 8 against 2, 0, 2."""
    found = stats.compare(FIRST, SECOND, seed=0)
    assert (found.prompts, found.answers) == (3, 2)
    assert found.first_mean == pytest.approx(2)
    assert found.second_mean == pytest.approx(7 / 3)
    assert found.mean_difference.value == pytest.approx((1 + 0 - 2) / 3)
    assert found.win_rate.value == pytest.approx((1 + 0.5 + 0) / 3)
    # Pairs of answers: 1-0 won, 1-2 lost, 3-0 and 3-2 won; four ties; of 0, 4 only 4-3 won.
    assert found.answer_win_rate.value == pytest.approx((3 / 4 + 1 / 2 + 1 / 4) / 3)
    assert found.first_variance == pytest.approx(10 / 3)
    assert found.second_variance == pytest.approx(4 / 3)
    assert found.variance_difference.value == pytest.approx(2)


def test_the_bootstrap_of_two_prompts_is_known():
    """Its resamples are (0, 0), (0, 1), (1, 0), (1, 1): the ends hold a quarter each."""
    assert stats.bootstrap_mean(np.array([0.0, 1.0]), seed=5) == stats.Estimate(0.5, 0.0, 1.0)


def test_a_seed_repeats_an_interval():
    values = np.arange(30.0)
    assert stats.bootstrap_mean(values, seed=1) == stats.bootstrap_mean(values, seed=1)
    assert stats.bootstrap_mean(values, seed=1) != stats.bootstrap_mean(values, seed=2)


def test_the_bootstrap_covers_the_truth_as_often_as_it_says(monkeypatch):
    """Prompts of very different difficulty, noisy answers, a true gain of 0.1."""
    monkeypatch.setattr(stats, "RESAMPLES", 1000)
    source = np.random.default_rng(0)
    trials, covered = 300, 0
    for trial in range(trials):
        difficulty = source.normal(0, 3, (80, 1))
        gain = source.normal(0.1, 0.5, (80, 1))
        first = difficulty + gain + source.normal(0, 1, (80, 4))
        second = difficulty + source.normal(0, 1, (80, 4))
        interval = stats.mean_difference(first, second, seed=trial)
        covered += interval.low <= 0.1 <= interval.high
    assert 0.91 <= covered / trials <= 0.98


def test_a_gain_that_pairing_shows_and_no_pairing_would_hide():
    source = np.random.default_rng(1)
    second = source.normal(0, 5, (60, 1)) + source.normal(0, 0.2, (60, 4))
    interval = stats.mean_difference(second + 0.3, second, seed=0)
    assert interval.low == pytest.approx(0.3)
    assert interval.high == pytest.approx(0.3)


@settings(max_examples=30, deadline=None)
@given(rewards(6, 3), rewards(6, 3), st.integers(0, 99))
def test_swapping_the_arms_mirrors_every_statistic(first, second, seed):
    there, back = stats.compare(first, second, seed), stats.compare(second, first, seed)
    for name, whole in (
        ("mean_difference", 0),
        ("variance_difference", 0),
        ("win_rate", 1),
        ("answer_win_rate", 1),
    ):
        one, other = getattr(there, name), getattr(back, name)
        assert one.value == pytest.approx(whole - other.value, abs=1e-9)
        assert one.low == pytest.approx(whole - other.high, abs=1e-9)
        assert one.high == pytest.approx(whole - other.low, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(rewards(5, 2), rewards(5, 2), st.permutations(range(5)))
def test_the_order_of_the_prompts_does_not_matter(first, second, order):
    one = stats.compare(first, second, seed=0)
    other = stats.compare(first[order], second[order], seed=0)
    assert one.mean_difference.value == pytest.approx(other.mean_difference.value)
    assert one.win_rate == other.win_rate


def test_wilson_by_hand():
    """Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20 and 1 of 29."""
    for successes, trials, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = stats.wilson(successes, trials)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, 2 * n), st.just(n))))
def test_wilson_stays_around_its_share(case):
    halves, trials = case
    found = stats.wilson(halves / 2, trials)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


def test_pair_statistics_by_hand():
    margins = np.array([math.log(3), math.log(3), -math.log(3), 0.0])
    assert stats.pair_accuracy(margins).value == pytest.approx(2.5 / 4)
    assert stats.pair_log_loss(margins) == pytest.approx(
        -(2 * math.log(0.75) + math.log(0.25) + math.log(0.5)) / 4
    )
    # Confidence 0.75 three times with 2 of 3 right, 0.5 once with half right.
    assert stats.pair_calibration_error(margins) == pytest.approx((3 * 0.75 - 2) / 4)


def test_certain_pairs_have_finite_losses():
    """Holds down: a probability of exactly 0 or 1 would make the loss infinite."""
    assert stats.pair_log_loss(np.array([1000.0, -1000.0])) == pytest.approx(500)
    assert stats.pair_calibration_error(np.array([1000.0, 1000.0])) == 0


def test_a_calibrated_model_has_almost_no_calibration_error():
    source = np.random.default_rng(0)
    margins = source.normal(0, 2, 40_000)
    preferred = source.random(margins.size) < 1 / (1 + np.exp(-margins))
    honest = np.where(preferred, margins, -margins)
    assert stats.pair_calibration_error(honest) < 0.01
    assert stats.pair_calibration_error(3 * honest) > 0.1


def test_coin_tossing_costs_log_two():
    margins = np.zeros(7)
    assert stats.pair_log_loss(margins) == pytest.approx(math.log(2))
    assert stats.pair_accuracy(margins).value == 0.5
    assert stats.pair_calibration_error(margins) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: stats.compare(FIRST, SECOND[:2], 0), "equal shape"),
        (lambda: stats.compare(FIRST[0], SECOND[0], 0), r"shape \(prompts, answers\)"),
        (lambda: stats.compare(np.zeros((0, 2)), np.zeros((0, 2)), 0), "found"),
        (lambda: stats.mean_difference(FIRST[:1], SECOND[:1], 0), "at least 2 prompts"),
        (lambda: stats.compare(FIRST[:, :1], SECOND[:, :1], 0), "at least 2 answers"),
        (lambda: stats.win_rate(FIRST, np.full_like(FIRST, math.nan)), "6 of 6"),
        (lambda: stats.within_prompt_variances(FIRST * math.inf), "finite rewards"),
        (lambda: stats.pair_accuracy(np.array([])), "found"),
        (lambda: stats.pair_log_loss(np.array([math.nan])), "finite margins"),
        (lambda: stats.pair_calibration_error(np.zeros(3), bins=0), "at least 1 bin"),
        (lambda: stats.wilson(1, 0), "at least one trial"),
        (lambda: stats.wilson(5, 4), "0 to 4"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_what_cannot_be_compared_is_refused(call, says):
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert caught.value.cure
