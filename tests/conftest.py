"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from alignpro_lite import AlignedModel, DeviceRequest

DATA = Path(__file__).with_name("data")
TINY_TARGET = DATA / "tiny.gguf"
TINY_BUNDLE = DATA / "tiny-bundle"


@pytest.fixture(scope="session")
def tiny_model() -> Iterator[AlignedModel]:
    """The tiny committed pair; tests/make_tiny_models.py makes it."""
    with AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=DeviceRequest("cpu")) as model:
        yield model


@pytest.fixture(scope="session")
def default_model() -> Iterator[AlignedModel]:
    """The shipped default pair, loaded once; `make models` brings it."""
    with AlignedModel.load() as model:
        yield model
