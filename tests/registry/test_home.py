"""Users without a home folder, and caches and folders that cannot be read."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import platformdirs
import pytest

from alignpro_lite.cli import exit_code_of
from alignpro_lite.errors import RegistryError
from alignpro_lite.registry import Cache, ModelStore
from alignpro_lite.registry.models_toml import load
from alignpro_lite.registry.sources import parse_source
from alignpro_lite.registry.storage import user_path
from tests.support import TINY_BUNDLE, TINY_TARGET


def no_home(*_: object, **__: object) -> Path:
    raise RuntimeError("could not determine the home directory")


def unresolved(*_: object, **__: object) -> Path:
    return Path("~/.cache/alignpro-lite")


@pytest.fixture(params=[no_home, unresolved], ids=["raises", "relative"])
def homeless(request, monkeypatch):
    """A user without HOME and without an entry in passwd, with either behaviour of platformdirs."""
    for name in ("ALIGNPRO_LITE_CACHE", "ALIGNPRO_LITE_MODELS", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: os.fspath(path))
    monkeypatch.setattr(platformdirs, "user_cache_path", request.param)
    monkeypatch.setattr(platformdirs, "user_config_path", request.param)


def test_models_with_paths_need_no_home_folder(homeless):
    """A RuntimeError of platformdirs or pathlib was a traceback."""
    store = ModelStore.open()
    assert store.path("target", TINY_TARGET) == TINY_TARGET
    assert store.path("bundle", str(TINY_BUNDLE)) == TINY_BUNDLE
    assert not store.cache.remembers("fact")
    store.cache.remember("fact")


def test_what_needs_the_cache_says_where_it_may_be(homeless, tmp_path):
    with pytest.raises(RegistryError, match="No home folder") as caught:
        ModelStore.open().path("target", "default")
    assert "--cache DIR" in caught.value.cure
    assert Cache.open(tmp_path).root == tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "hello"],
        ["run", "--target", "~/x.gguf", "hello"],
        ["run", "--cache", "~/c", "hello"],
        ["rewrite", "hello"],
        ["models", "list"],
        ["models", "pull", "target/smollm2-135m-instruct"],
        ["models", "rm", "target/smollm2-135m-instruct"],
        ["doctor", "--target", str(TINY_TARGET)],
    ],
    ids=" ".join,
)
def test_no_command_without_a_home_folder_gives_a_traceback(homeless, capsys, arguments):
    assert exit_code_of(arguments) == 1
    assert capsys.readouterr().err.count("Error: ") == 1


@pytest.mark.parametrize("text", ["~nouser/x", "~nouser", "~no-such-user-/a/b"])
def test_an_unknown_user_is_one_clear_error_at_every_door(monkeypatch, tmp_path, text):
    with pytest.raises(RegistryError, match="home folder that is not known"):
        user_path(text)
    with pytest.raises(RegistryError, match="home folder that is not known"):
        Cache.open(Path(text))
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", text)
    with pytest.raises(RegistryError, match="home folder that is not known"):
        Cache.open()
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", text)
    with pytest.raises(RegistryError, match="home folder that is not known"):
        load()


def test_a_source_below_home_without_home_is_one_clear_error(homeless, tmp_path):
    with pytest.raises(RegistryError, match="home folder that is not known"):
        parse_source("file:~/x.gguf", tmp_path)


def test_a_tilde_is_the_home_folder_and_only_at_the_beginning(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert user_path("~/a") == tmp_path / "a"
    assert user_path("/x/~/a") == Path("/x/~/a").absolute()


@pytest.fixture
def unreadable(monkeypatch, tmp_path):
    """A folder in which nothing can be looked at."""
    closed = tmp_path / "closed"
    real = os.stat

    def stat(path, *args, **options):
        if not isinstance(path, int) and Path(os.fsdecode(path)).is_relative_to(closed):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(closed / "cache"))
    monkeypatch.setattr(
        "alignpro_lite.registry.models_toml.default_user_file", lambda: closed / "models.toml"
    )
    monkeypatch.delenv("ALIGNPRO_LITE_MODELS", raising=False)
    return closed


def test_an_unreadable_cache_does_not_concern_models_with_paths(unreadable):
    """`run` ended with "Permission denied" although it needed nothing of the cache."""
    store = ModelStore.open()
    assert store.path("target", TINY_TARGET) == TINY_TARGET
    assert not store.cache.remembers("fact")


def test_an_unreadable_cache_is_a_typed_error_for_who_needs_it(unreadable):
    """Users of the library met the bare OSError."""
    for kind in ("target", "bundle"):
        with pytest.raises(RegistryError, match="Permission denied") as caught:
            ModelStore.open().path(kind, "default")
        assert "--cache DIR" in caught.value.cure
