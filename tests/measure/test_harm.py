"""Prompts on which all answers got worse, counted by hand and against luck."""

from __future__ import annotations

import numpy as np
import pytest

from alignpro_lite.errors import InputError
from alignpro_lite.measure.harm import harm
from alignpro_lite.measure.statistics import wilson


def test_the_prompts_that_got_worse_are_counted():
    baseline = np.array([[1.0, 3.0], [1.0, 3.0], [1.0, 3.0], [1.0, 3.0]])
    system = np.array([[0.5, 0.7], [0.5, 2.0], [0.5, 3.0], [2.0, 4.0]])
    found = harm(system, baseline)
    assert found.each == wilson(2, 4), "a tie is not worse"
    assert found.every == wilson(1, 4)
    assert (found.each_by_luck, found.every_by_luck) == (1 / 4, 1 / 6)


@pytest.mark.parametrize("answers", [2, 4])
def test_luck_is_what_two_equal_arms_show(answers):
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 40_000, answers))
    found = harm(first, second)
    assert found.each.value == pytest.approx(found.each_by_luck, abs=0.01)
    assert found.every.value == pytest.approx(found.every_by_luck, abs=0.01)


def test_arms_of_other_shapes_are_refused():
    with pytest.raises(InputError, match="equal shape"):
        harm(np.zeros((2, 2)), np.zeros((2, 3)))
