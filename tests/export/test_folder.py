"""Exports beside each other, and exports that are killed: nothing is lost and nothing stays."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alignpro_lite.errors import ExportError, InputError
from alignpro_lite.export import folder
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.export.folder import (
    refuse_foreign_file,
    refuse_loss,
    whole_folder,
    work_beside,
)
from alignpro_lite.export.reward import RewardRequest, export_reward
from alignpro_lite.export.target import export_target
from tests.support import TINY_BUNDLE, TINY_TARGET

SIDECAR = "card.json"


def bundle(path: Path, text: str) -> Path:
    path.mkdir()
    (path / SIDECAR).write_text(text)
    return path


def export(path: Path, text: str) -> None:
    with whole_folder(path, SIDECAR) as work:
        (work / SIDECAR).write_text(text)


def text_of(path: Path) -> str:
    return (path / SIDECAR).read_text()


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


EXPORT_AND_HANG = """
import sys, time
from pathlib import Path
from alignpro_lite.export.folder import whole_folder
with whole_folder(Path(sys.argv[1]), "card.json") as work:
    (work / "card.json").write_text("never finished")
    print("working", flush=True)
    time.sleep(600)
"""


def killed_export(path: Path) -> None:
    """Start an export in a process of its own, and kill it at work."""
    child = subprocess.Popen(
        [sys.executable, "-c", EXPORT_AND_HANG, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "working\n"
    child.kill()
    child.communicate()


def test_a_second_export_to_a_folder_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    """Regression: the second deleted the work of the first, which then failed."""
    out = tmp_path / "out"
    with whole_folder(out, SIDECAR) as work:
        for same in (out, tmp_path / "." / "out", tmp_path / "x" / ".." / "out"):
            with pytest.raises(ExportError, match="is under way"), whole_folder(same, SIDECAR):
                pytest.fail("it must not start")
        (work / SIDECAR).write_text("first")
    assert text_of(out) == "first"
    assert names(tmp_path) == ["out"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_folder_under_another_name_is_the_same_folder(tmp_path: Path) -> None:
    bundle(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    with whole_folder(tmp_path / "real", SIDECAR) as work:
        link = tmp_path / "link"
        with pytest.raises(ExportError, match="is under way"), whole_folder(link, SIDECAR):
            pytest.fail("it must not start")
        (work / SIDECAR).write_text("new")
    export(tmp_path / "link", "newer")
    assert (tmp_path / "link").is_symlink()
    assert text_of(tmp_path / "real") == "newer"


@pytest.mark.parametrize("other", ["b-c", "b.gguf", "b.lock", "lock-b", ".b", "bundle", "B-"])
def test_exports_whose_names_begin_alike_do_not_touch_each_other(
    other: str, tmp_path: Path
) -> None:
    """Regression: an export to `b` deleted one under way to `b-c`."""
    with whole_folder(tmp_path / other, SIDECAR) as first:
        export(tmp_path / "b", "second")
        (first / SIDECAR).write_text("first")
        with whole_folder(tmp_path / "b", SIDECAR) as third:
            (third / SIDECAR).write_text("third")
    assert text_of(tmp_path / other) == "first"
    assert names(tmp_path) == sorted(["b", other])


def test_a_folder_and_a_file_are_exported_side_by_side(tmp_path: Path) -> None:
    with work_beside(tmp_path / "model.gguf") as work, whole_folder(tmp_path / "b", SIDECAR) as b:
        (b / SIDECAR).write_text("bundle")
        assert not any(work.iterdir())
    assert names(tmp_path) == ["b"]


def test_what_a_killed_export_left_is_collected_by_the_next(tmp_path: Path) -> None:
    """Regression: the work folders of killed exports stayed for ever."""
    bundle(tmp_path / "gone", "old")
    killed_export(tmp_path / "gone")
    assert names(tmp_path) == [".export-lock-gone", ".exporting-gone", "gone"]
    with whole_folder(tmp_path / "alive", SIDECAR) as alive:
        export(tmp_path / "other", "done")
        (alive / SIDECAR).write_text("alive")
    assert names(tmp_path) == ["alive", "gone", "other"]
    assert text_of(tmp_path / "gone") == "old"
    assert text_of(tmp_path / "alive") == "alive"


class Killed(BaseException):
    """Stands for a process that ends at once."""


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("next_export", ["out", "elsewhere"])
def test_an_export_killed_while_it_replaces_a_bundle_leaves_one(
    step: int, next_export: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: killed between two renames, the old bundle was deleted at the next start, before
    its successor existed."""
    out = bundle(tmp_path / "out", "old")
    monkeypatch.setattr(folder, "exchange", lambda first, second: False)
    steps = iter(range(1, 3))
    rename = Path.rename

    def killed(path: Path, target: Path) -> Path:
        if next(steps) == step:
            raise Killed
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        patch.setattr(shutil, "rmtree", lambda path: None)
        with pytest.raises(Killed):
            export(out, "new")
    assert out.exists() == (step == 1)

    def fails() -> None:
        with whole_folder(tmp_path / next_export, SIDECAR):
            assert text_of(out) == "old"
            raise Killed

    with pytest.raises(Killed):
        fails()
    assert names(tmp_path) == ["out"]
    assert text_of(out) == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems may have no such step")
def test_a_bundle_is_replaced_in_one_step(tmp_path: Path) -> None:
    """Regression: for a moment there was no bundle, neither the old one nor the new one."""
    out = bundle(tmp_path / "out", "old")
    stop, missing = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            if not (out / SIDECAR).is_file():
                missing.append(True)

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(50):
        export(out, f"new {number}")
    stop.set()
    watcher.join()
    assert text_of(out) == "new 49"
    assert not missing


def test_what_comes_while_an_export_runs_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def exported_meanwhile() -> None:
        with whole_folder(out, SIDECAR) as work:
            (work / SIDECAR).write_text("new")
            out.mkdir()
            (out / "letter.txt").write_text("mine")

    with pytest.raises(ExportError, match="something else"):
        exported_meanwhile()
    assert names(tmp_path) == ["out"]
    assert names(out) == ["letter.txt"]


@pytest.mark.parametrize("found", ["file", "folder"])
def test_a_users_own_things_are_not_replaced(found: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine") if found == "file" else out.mkdir()
    with pytest.raises(ExportError, match="something else"), whole_folder(out, SIDECAR):
        pytest.fail("it must not start")
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("out", ["model", "model/../model", "bundle", "."])
def test_an_export_never_replaces_what_it_is_made_from(tmp_path, monkeypatch, out):
    """A bundle that holds the adapter was replaced, and the adapter with it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TINY_BUNDLE, "bundle")
    Path("bundle/adapter").mkdir()
    Path("model").mkdir()
    with pytest.raises(InputError, match="from which the export is made"):
        refuse_loss(Path(out), Path("model"), Path("bundle/adapter"))


def test_an_export_may_go_into_the_folder_that_it_is_made_from(tmp_path):
    (tmp_path / "trained/bundle").mkdir(parents=True)
    refuse_loss(tmp_path / "trained/bundle", tmp_path / "trained")
    refuse_loss(tmp_path / "trained/new", tmp_path / "trained")


@pytest.mark.parametrize("name", ["model.safetensors", "notes.txt", "folder"])
def test_a_gguf_replaces_only_a_gguf(tmp_path, name):
    """Any file under that name was overwritten, also weights of the source."""
    (tmp_path / "folder").mkdir()
    for file in ("model.safetensors", "notes.txt"):
        (tmp_path / file).write_bytes(b"own")
    with pytest.raises(InputError, match="is no GGUF file"):
        refuse_foreign_file(tmp_path / name)
    refuse_foreign_file(tmp_path / "new.gguf")
    shutil.copy(TINY_TARGET, tmp_path / "old.gguf")
    refuse_foreign_file(tmp_path / "old.gguf")


def test_the_library_replaces_no_source_either(tmp_path):
    """Only the command line asked; a program that exported in place lost its model."""
    source = tmp_path / "model"
    source.mkdir()
    (source / "config.json").write_text("{}")
    request = BundleRequest(source, "model", None, None, "int4", "cpu", allow_mismatch=False)
    with pytest.raises(InputError, match="from which the export is made"):
        export_bundle(request, source)
    with pytest.raises(InputError, match="from which the export is made"):
        export_reward(RewardRequest(source, source, "int8", allow_mismatch=False), source)
    with pytest.raises(InputError, match="is no GGUF file"):
        export_target(source, source / "config.json", "F16")
    assert (source / "config.json").read_text() == "{}"
