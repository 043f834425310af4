"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from alignpro_lite import AlignedModel


@pytest.fixture(scope="session")
def default_model() -> Iterator[AlignedModel]:
    """The shipped default pair, loaded once; `make models` brings it."""
    with AlignedModel.load() as model:
        yield model
