"""Reward functions that tests name as `tests.support.reward_functions:...`."""

from __future__ import annotations

NOT_A_FUNCTION = 3


def length(prompts, answers):
    return [float(len(answer)) for answer in answers]


def undecided(prompts, answers):
    return [float("nan") if "?" in answer else 1.0 for answer in answers]


def raising(prompts, answers):
    raise KeyError("no such word")


def too_short(prompts, answers):
    return [1.0]


def texts(prompts, answers):
    return ["1.0" for _ in answers]


def ragged(prompts, answers):
    return [[1.0], [1.0, 2.0]]


def nothing(prompts, answers):
    return None
