"""When training ends: once the reward on prompts set apart has stopped rising."""

from __future__ import annotations

import pytest

from alignpro_lite.train.plateau import Measurement, Plateau


def after(rewards, patience=2):
    plateau = Plateau(patience)
    for step, reward in enumerate(rewards):
        plateau = plateau.after(Measurement(step, reward))
    return plateau


@pytest.mark.parametrize(
    ("rewards", "best", "is_reached"),
    [
        ([], None, False),
        ([0.1], 0, False),
        ([0.1, 0.2, 0.3, 0.4], 3, False),
        ([0.1, 0.3, 0.2], 1, False),
        ([0.1, 0.3, 0.2, 0.25], 1, True),
        ([0.1, 0.3, 0.2, 0.31], 3, False),
        # An equal reward is no rise, and the earlier step is the smaller change.
        ([0.1, 0.3, 0.3, 0.3], 1, True),
        # What never rises ends with the weights that it began with.
        ([0.3, 0.2, 0.1], 0, True),
    ],
)
def test_training_ends_when_nothing_is_better_any_more(rewards, best, is_reached):
    plateau = after(rewards)
    assert (plateau.best.step if plateau.best else None) == best
    assert plateau.is_reached == is_reached


def test_more_patience_waits_longer():
    rewards = [0.1, 0.3, 0.2, 0.2]
    assert after(rewards, patience=2).is_reached
    assert not after(rewards, patience=3).is_reached
