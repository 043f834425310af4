"""Filters against numbers worked out by hand, the sampler against its closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.decoding.sampling import (
    MAX_SEED,
    GivenTokens,
    Sampler,
    Sampling,
    filtered_log_probs,
    log_softmax,
    stream_seed,
)
from alignpro_lite.errors import InputError

MODEL = np.array([0.10, 0.40, 0.05, 0.30, 0.15])
"""A distribution over five tokens."""


def logits_of(probabilities) -> np.ndarray:
    """Scores of that distribution, off by a constant as a model's are."""
    with np.errstate(divide="ignore"):
        return (np.log(np.asarray(probabilities)) + 3.0).astype(np.float32)


def filtered(**settings) -> dict[int, float]:
    ids, log_probs = filtered_log_probs(np.log(MODEL), Sampling(**settings))
    return {int(i): float(np.exp(p)) for i, p in zip(ids, log_probs, strict=True)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, {0: 0.10, 1: 0.40, 2: 0.05, 3: 0.30, 4: 0.15}),
        ({"top_k": 2}, {1: 4 / 7, 3: 3 / 7}),
        ({"top_k": 1}, {1: 1.0}),
        ({"top_k": 9}, {0: 0.10, 1: 0.40, 2: 0.05, 3: 0.30, 4: 0.15}),
        # .40 + .30 = .70 is short of .75, so the .15 comes too.
        ({"top_p": 0.75}, {1: 0.40 / 0.85, 3: 0.30 / 0.85, 4: 0.15 / 0.85}),
        ({"top_p": 0.6}, {1: 4 / 7, 3: 3 / 7}),
        ({"top_p": 0.01}, {1: 1.0}),
        # At least .3 * .40 = .12.
        ({"min_p": 0.3}, {1: 0.40 / 0.85, 3: 0.30 / 0.85, 4: 0.15 / 0.85}),
        ({"min_p": 0.99}, {1: 1.0}),
        # Temperature 1/2 squares: .01, .16, .0025, .09, .0225, of .285 in all.
        (
            {"temperature": 0.5},
            {
                0: 0.01 / 0.285,
                1: 0.16 / 0.285,
                2: 0.0025 / 0.285,
                3: 0.09 / 0.285,
                4: 0.0225 / 0.285,
            },
        ),
    ],
)
def test_each_filter_gives_the_numbers_worked_out_by_hand(settings, expected):
    assert filtered(**settings) == pytest.approx(expected, abs=1e-6)


def test_top_p_counts_the_mass_that_top_k_left():
    """Of .40/.85 = .47 and .30/.85 = .35, .8 needs both; of .40 and .30 it needs a third."""
    assert filtered(top_k=3, top_p=0.8) == pytest.approx({1: 4 / 7, 3: 3 / 7})


def test_temperature_comes_after_the_cuts():
    """Temperature 10 first would flatten the five so that top-p .6 kept three."""
    both = filtered(top_p=0.6, temperature=10)
    assert both.keys() == {1, 3}
    ratio = (0.40 / 0.30) ** 0.1
    assert both[1] / both[3] == pytest.approx(ratio)


def test_min_p_comes_after_top_p_and_before_temperature():
    assert filtered(top_p=0.8, min_p=0.5, temperature=0.5) == pytest.approx({1: 16 / 25, 3: 9 / 25})


settings_of = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 0.9),
)
scores = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12)


@given(scores, settings_of)
def test_what_survives_sums_to_one_and_holds_the_best_token(values, sampling):
    log_probs = log_softmax(np.array(values, np.float32))
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-5)
    ids, kept = filtered_log_probs(log_probs, sampling)
    assert np.exp(kept).sum() == pytest.approx(1, abs=1e-9)
    assert len(set(ids.tolist())) == ids.size == kept.size
    assert log_probs[ids].max() == log_probs.max()
    assert sampling.top_k == 0 or ids.size <= sampling.top_k


@given(scores, st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_that_holds_the_mass(values, top_p):
    """Tokens too unlikely to matter are left out of the sort; the set must not change."""
    probabilities = np.exp(log_softmax(np.array(values, np.float32)))
    ids, _ = filtered_log_probs(np.log(probabilities), Sampling(top_p=top_p))
    ordered = np.sort(probabilities)[::-1]
    assert ordered[: ids.size].sum() >= top_p - 1e-9
    assert ordered[: ids.size - 1].sum() <= top_p + 1e-9
    assert np.sort(probabilities[ids])[::-1] == pytest.approx(ordered[: ids.size])


def test_log_softmax_works_by_rows_and_stands_huge_scores():
    rows = log_softmax(np.array([[1e30, 0.0], [-1e4, -1e4]], np.float32))
    assert rows == pytest.approx(np.array([[0.0, -1e30], [-math.log(2), -math.log(2)]]))


CHI_SQUARE_999 = {1: 10.83, 2: 13.82, 4: 18.47}
"""Chi-square with that many degrees of freedom lies below with probability .999."""


@pytest.mark.parametrize(
    "settings", [{}, {"top_k": 3, "temperature": 2.0}, {"top_p": 0.6}, {"min_p": 0.3}]
)
def test_the_sampler_draws_from_the_filtered_distribution(settings):
    sampler = Sampler(Sampling(seed=11, **settings), 0)
    logits, draws = logits_of(MODEL), 20_000
    drawn = np.bincount([sampler.draw(logits).token for _ in range(draws)], minlength=5)
    expected = {token: p * draws for token, p in filtered(**settings).items()}
    assert sum(drawn[token] for token in expected) == draws, "a filtered token was drawn"
    statistic = sum((drawn[token] - e) ** 2 / e for token, e in expected.items())
    assert statistic < CHI_SQUARE_999[len(expected) - 1]


def sentence(sampling, stream, length=20):
    sampler = Sampler(sampling, stream)
    return [sampler.draw(logits_of(MODEL)).token for _ in range(length)]


def test_streams_depend_on_seed_and_number_alone():
    """They are drawn in turns here and one after another there."""
    sampling = Sampling(seed=3)
    together = [Sampler(sampling, number) for number in range(4)]
    rows = [[sampler.draw(logits_of(MODEL)).token for sampler in together] for _ in range(20)]
    assert [list(column) for column in zip(*rows, strict=True)] == [
        sentence(sampling, number) for number in range(4)
    ]


def test_seeds_and_streams_give_different_draws():
    sentences = [sentence(Sampling(seed=seed), stream) for seed in range(3) for stream in range(3)]
    assert len({tuple(tokens) for tokens in sentences}) == 9


def test_a_draw_reports_the_models_log_probability_and_the_sum_of_the_proposals():
    sampling = Sampling(temperature=0.5, top_k=3, seed=5)
    sampler = Sampler(sampling, 0)
    drawn = [sampler.draw(logits_of(MODEL)) for _ in range(8)]
    proposals = filtered(temperature=0.5, top_k=3)
    for draw in drawn:
        assert draw.log_prob == pytest.approx(math.log(MODEL[draw.token]), abs=1e-6)
    expected = sum(math.log(proposals[draw.token]) for draw in drawn)
    assert sampler.log_proposal == pytest.approx(expected, abs=1e-6)


def test_temperature_zero_takes_the_best_with_the_models_own_log_probability():
    sampler = Sampler(Sampling(temperature=0, top_k=2, seed=1), 0)
    assert {sampler.draw(logits_of(MODEL)).token for _ in range(5)} == {1}
    assert sampler.draw(logits_of(MODEL)).log_prob == pytest.approx(math.log(0.4), abs=1e-6)
    assert sampler.log_proposal == 0.0


def test_an_impossible_token_is_never_drawn():
    sampler = Sampler(Sampling(seed=2), 0)
    logits = logits_of([0.0, 0.5, 0.0, 0.5, 0.0])
    assert {sampler.draw(logits).token for _ in range(200)} == {1, 3}


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-310])
def test_a_tiny_temperature_is_greedy_and_not_nan(temperature):
    """1e-310 divided every log-probability into minus infinity, and the sum into nan."""
    sampler = Sampler(Sampling(temperature=temperature), 0)
    assert sampler.draw(logits_of(MODEL)).token == 1
    assert sampler.log_proposal == pytest.approx(0)


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("temperature", -0.1, "temperature must be 0 to 100, found -0.1."),
        ("temperature", math.nan, "temperature must be 0 to 100, found nan."),
        ("temperature", math.inf, "temperature must be 0 to 100, found inf."),
        ("top_k", -1, "top-k must be 0 or more, found -1."),
        ("top_p", 0, "top-p must be above 0, at most 1, found 0."),
        ("top_p", 1.01, "top-p must be above 0, at most 1, found 1.01."),
        ("min_p", 1, "min-p must be 0 to below 1, found 1."),
        ("min_p", -0.5, "min-p must be 0 to below 1, found -0.5."),
        ("seed", -1, f"seed must be 0 to {MAX_SEED}, found -1."),
        ("seed", MAX_SEED + 1, f"seed must be 0 to {MAX_SEED}, found {MAX_SEED + 1}."),
    ],
)
def test_a_setting_out_of_range_is_named_with_value_and_range(setting, value, words):
    with pytest.raises(InputError) as caught:
        Sampling(**{setting: value})
    assert caught.value.problem == words
    assert setting.replace("_", "-") in caught.value.cure


def test_given_tokens_are_scored_as_they_come():
    source = GivenTokens([3, 2])
    draws = [source.draw(logits_of(MODEL)) for _ in range(2)]
    assert [draw.token for draw in draws] == [3, 2]
    assert [draw.log_prob for draw in draws] == pytest.approx([math.log(0.3), math.log(0.05)])
    assert source.log_proposal == 0.0


def test_stream_seeds_fit_32_bits_and_differ():
    seeds = {stream_seed(seed, stream) for seed in (0, 7, MAX_SEED) for stream in range(50)}
    assert len(seeds) == 150
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0},
        {},
        {"top_k": 2, "top_p": 0.9, "min_p": 0.1},
        {"temperature": 1e-9, "top_p": 0.5},
    ],
)
@pytest.mark.parametrize(
    "logits",
    [
        [math.nan, 1, 2, 3],
        [1, 2, 3, math.nan],
        [math.nan] * 4,
        [1, math.inf, 2, 3],
        [-math.inf] * 4,
        [math.inf, -math.inf, 0, math.nan],
    ],
)
def test_scores_that_are_no_numbers_have_no_probability(logits, settings):
    """They were drawn from as if they were some, and ended in an exception of numpy at times."""
    scores = np.array(logits, np.float32)
    assert math.isnan(Sampler(Sampling(**settings), 0).draw(scores).log_prob)
    assert math.isnan(GivenTokens([1]).draw(scores).log_prob)


def test_a_token_that_the_model_rules_out_leaves_the_others_numbers():
    scores = np.array([1.0, -math.inf, 2.0], np.float32)
    assert math.isfinite(Sampler(Sampling(top_p=0.9), 0).draw(scores).log_prob)
    assert GivenTokens([1]).draw(scores).log_prob == -math.inf
