"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from alignpro_lite import AlignedModel, DeviceRequest
from alignpro_lite.hardware import find_gpus

DATA = Path(__file__).with_name("data")
TINY_TARGET = DATA / "tiny.gguf"
TINY_BUNDLE = DATA / "tiny-bundle"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is none."""
    if find_gpus():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU was found"))


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
