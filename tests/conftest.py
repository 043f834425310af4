"""Fixtures that several test files share."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator

import pytest

from alignpro_lite import AlignedModel, DeviceRequest
from alignpro_lite.hardware.system import find_gpus
from tests.support import TINY_BUNDLE, TINY_TARGET


def _keep_to_a_core() -> None:
    """Give each worker of pytest-xdist a core of its own, for its threads and children too.

    Every library takes as many threads as it sees cores; two that take all of them only wait for
    each other.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw")
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


_keep_to_a_core()  # now: other conftest files import torch, which counts the cores once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and skip what is marked `gpu` where there is none."""
    items.sort(key=lambda item: not (item.get_closest_marker("real") or "train" in item.path.parts))
    if find_gpus():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU was found"))


@pytest.fixture(scope="module")
def forked_converters() -> Iterator[None]:
    """Start the converters of exports in a second instead of six, where a system can fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    from alignpro_lite.export import converters
    from tests.support.forked_converters import run_forked

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(converters, "run_child", run_forked)
        yield


@pytest.fixture(scope="session")
def tiny_model() -> Iterator[AlignedModel]:
    """The tiny committed pair; tests/support/make_tiny_models.py makes it."""
    with AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=DeviceRequest("cpu")) as model:
        yield model


@pytest.fixture(scope="session")
def small_model() -> Iterator[AlignedModel]:
    """The preset of the smallest real models, loaded once; `make models MODELS=small` brings it."""
    with AlignedModel.load(models="small") as model:
        yield model
