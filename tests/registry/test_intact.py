"""Models of the cache that were overwritten, and what it costs to notice."""

from __future__ import annotations

import hashlib
import os

import pytest

from alignpro_lite.errors import ModelFileError, RegistryError
from alignpro_lite.registry import intact
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.models_toml import load_files
from alignpro_lite.registry.storage import sha256_of
from alignpro_lite.registry.store import ModelStore

CONTENT = b"weights" * 1000
ROWS = """
[target.pulled]
source = "hf:a/b@main/model.gguf"
licence = "MIT"
context = 2048
sha256 = "{digest}"

[prompter.folder]
source = "hf:a/c@main"
files = ["config.json", "model.safetensors"]
licence = "MIT"
context = 2048
"""


@pytest.fixture
def store(tmp_path):
    """A cache that holds a file with a digest, and a folder whose digests were recorded."""
    toml = tmp_path / "models.toml"
    toml.write_text(ROWS.format(digest=hashlib.sha256(CONTENT).hexdigest()), encoding="utf-8")
    store = ModelStore(load_files([toml]), Cache(tmp_path / "cache"))
    for entry in store.registry.entries:
        for file in entry.files:
            path = store.cache.file_path(entry, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT)
            (store.cache.root / "locks").mkdir(exist_ok=True)
            store.cache.record(entry, file, hashlib.sha256(CONTENT).hexdigest())
    return store


@pytest.fixture
def hashed(monkeypatch):
    """The files that are hashed."""
    paths = []

    def sha256(path, label):
        paths.append(path.name)
        return sha256_of(path, label)

    monkeypatch.setattr(intact, "sha256_of", sha256)
    return paths


def overwrite(path, keep_time=False):
    state = path.stat()
    with path.open("r+b") as stream:
        stream.seek(2000)
        stream.write(bytes(500))
    if keep_time:
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def test_a_file_is_hashed_once(store, hashed):
    for _ in range(3):
        assert store.path("target", "pulled").read_bytes() == CONTENT
        store.path("prompter", "folder")
    assert hashed == ["model.gguf", "config.json", "model.safetensors"]


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("by_path", [True, False])
def test_an_overwritten_file_is_refused_and_names_the_command(store, seen, by_path):
    """20 MB of zeros in a cached model gave an empty answer and exit code 0."""
    path = store.cache.path(store.registry.find("target", "pulled"))
    if seen:
        store.path("target", "pulled")
    overwrite(path)
    with pytest.raises(ModelFileError, match="not what was pulled") as caught:
        store.path("target", path if by_path else "pulled")
    assert "alignpro-lite models pull target/pulled" in caught.value.cure


@pytest.mark.skipif(os.name == "nt", reason="the time of the last change is that of the creation")
def test_a_time_that_was_set_back_hides_nothing(store):
    overwrite_this = store.path("target", "pulled")
    overwrite(overwrite_this, keep_time=True)
    with pytest.raises(ModelFileError):
        store.path("target", "pulled")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_every_file_of_a_folder_counts(store, name):
    overwrite(store.path("prompter", "folder") / name)
    with pytest.raises(ModelFileError, match=name):
        store.path("prompter", "folder")


def test_a_file_that_was_put_back_is_fine_again(store):
    path = store.path("target", "pulled")
    overwrite(path)
    with pytest.raises(ModelFileError):
        store.path("target", "pulled")
    path.write_bytes(CONTENT)
    assert store.path("target", "pulled") == path


def test_a_cache_that_cannot_be_written_still_tells(store, monkeypatch, tmp_path):
    (store.cache.root / "probes").write_text("a file where the folder should be", encoding="utf-8")
    path = store.path("target", "pulled")
    overwrite(path)
    with pytest.raises(ModelFileError):
        store.path("target", "pulled")


def test_a_file_outside_the_cache_is_the_users_own(store, tmp_path, hashed):
    (tmp_path / "own.gguf").write_bytes(b"other")
    assert store.path("target", tmp_path / "own.gguf") == tmp_path / "own.gguf"
    assert hashed == []


def test_a_missing_file_is_not_installed_as_before(store):
    store.path("target", "pulled").unlink()
    with pytest.raises(RegistryError, match="not installed"):
        store.path("target", "pulled")
