"""Engines that end with their test."""

from __future__ import annotations

import pytest

from alignpro_lite.decoding.engine import Engine
from tests.support.scripted_stepper import FakeStepper, Script


@pytest.fixture
def start():
    """Start engines that are closed after the test."""
    engines = []

    def build(stepper: FakeStepper) -> Engine[Script]:
        engines.append(Engine(stepper, "fake", "Ask for less."))
        return engines[-1]

    yield build
    for engine in engines:
        engine.close()
