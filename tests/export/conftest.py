"""What all tests of exports share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignpro_lite.export import decoder
from alignpro_lite.export.converters import build_graph
from alignpro_lite.registry.digests import digests_of


@pytest.fixture(scope="session", autouse=True)
def _graphs_are_built_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the float graph of equal folders: the builder's child process imports for seconds."""
    kept: dict[tuple[object, ...], Path] = {}

    def build_once(folder, destination, precision):
        key = (precision, *digests_of(folder).items())
        if key not in kept:
            build_graph(folder, destination, precision)
            kept[key] = shutil.copytree(destination, tmp_path_factory.mktemp("graph") / "kept")
        else:
            shutil.copytree(kept[key], destination, dirs_exist_ok=True)
        return destination / "model.onnx"

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder, "build_graph", build_once)
        yield
