"""The tiny committed models, loaded once for each test file."""

from __future__ import annotations

import pytest

from alignpro_lite import AlignedModel, DeviceRequest
from tests.support import TINY_BUNDLE, TINY_TARGET


@pytest.fixture(scope="module")
def model():
    with AlignedModel.load(
        TINY_TARGET,
        TINY_BUNDLE,
        "tests.support.reward_functions:length",
        devices=DeviceRequest("cpu"),
    ) as loaded:
        yield loaded
