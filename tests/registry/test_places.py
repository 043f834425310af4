"""Several sources of one file: tried in order, given up quickly, and the digest decides."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry import http
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.download import outages_remembered
from alignpro_lite.registry.entries import Entry, File
from alignpro_lite.registry.models_toml import load_files
from alignpro_lite.registry.pull import pull_model
from alignpro_lite.registry.sources import HubSource, WheelSource
from tests.support.hub_server import DATA, DIGEST, HALF, HUB_PATH
from tests.support.hub_wheels import WHEEL_PATH, serve_html

FIRST = HubSource("o/r", "v1", "d/f.gguf")
SECOND = WheelSource("my.pkg", "1.0", "my_pkg/m/a.bin")
ENTRY = Entry("target", "t", (FIRST, SECOND), (File("f.gguf", DIGEST, len(DATA)),))


def test_the_first_source_that_serves_is_enough(hub, tmp_path):
    serve_html(hub)
    hub.files[HUB_PATH] = DATA
    assert pull_model(ENTRY, Cache(tmp_path)).read_bytes() == DATA
    assert [path for path, _ in hub.requests] == [HUB_PATH]


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "answered 401"), (403, "answered 403"), (404, "answered 404"), (503, "answered 503")],
)
def test_the_next_source_is_tried_and_named(hub, tmp_path, status, said):
    serve_html(hub)
    hub.statuses[HUB_PATH] = status
    notes: list[str] = []
    path = pull_model(ENTRY, Cache(tmp_path), on_note=notes.append)
    assert path == tmp_path / "hf/o/r/v1/d/f.gguf"
    assert path.read_bytes() == DATA
    assert len(notes) == 1
    assert notes[0].startswith("hf:o/r: target/t: ")
    assert said in notes[0]
    assert notes[0].endswith("Next: pypi:my.pkg.")


def test_a_mirror_that_serves_other_bytes_is_named_and_the_next_one_is_used(hub, tmp_path):
    serve_html(hub)
    hub.files[HUB_PATH] = DATA[:-1] + b"!"
    notes: list[str] = []
    assert pull_model(ENTRY, Cache(tmp_path), on_note=notes.append).read_bytes() == DATA
    assert f"hf:o/r: target/t: expected sha256 {DIGEST}, found" in notes[0]
    assert not list(tmp_path.rglob("*.partial*"))


def test_when_no_source_serves_one_error_tells_of_each(hub, tmp_path):
    serve_html(hub)
    hub.statuses[HUB_PATH] = 401
    hub.statuses[WHEEL_PATH] = 404
    with pytest.raises(RegistryError, match="None of the sources gives target/t") as caught:
        pull_model(ENTRY, Cache(tmp_path))
    assert "hf:o/r: target/t: " in caught.value.problem
    assert "pypi:my.pkg: " in caught.value.problem
    assert "HF_TOKEN" in caught.value.cure
    assert "\n" not in str(caught.value)


def test_an_unfinished_download_of_one_source_does_not_spoil_the_next(hub, tmp_path):
    """Bytes of the first source were resumed from the second, and their mixture was refused."""
    hub.etag = None
    hub.files["/a/b/resolve/v1/d/f.gguf"] = b"x" * len(DATA)
    hub.files[HUB_PATH] = DATA
    hub.drops = [1000, 0, 0]
    entry = Entry("target", "t", (HubSource("a/b", "v1", "d/f.gguf"), FIRST), ENTRY.files)
    assert pull_model(entry, Cache(tmp_path)).read_bytes() == DATA


def test_a_host_without_address_is_given_up_at_once(hub, tmp_path, monkeypatch):
    """Each source that could not be reached was tried three times, with pauses."""
    serve_html(hub)
    tried: list[str] = []
    look_up = socket.getaddrinfo

    def fail(host, *arguments, **options):
        if host == "hub.example":
            tried.append(host)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    notes: list[str] = []
    assert pull_model(ENTRY, Cache(tmp_path), on_note=notes.append).read_bytes() == DATA
    assert tried == ["hub.example"]
    assert "https://hub.example/o/r/resolve/v1/d/f.gguf cannot be reached" in notes[0]


def test_what_was_reached_before_is_tried_again_when_it_cannot_be_reached(
    hub, tmp_path, monkeypatch
):
    """A short outage in the middle of a download is no reason to start at another source."""
    hub.files[HUB_PATH] = DATA
    hub.drops = [HALF]
    look_up, calls = socket.getaddrinfo, []

    def fail_once(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail_once)
    notes: list[str] = []
    assert pull_model(ENTRY, Cache(tmp_path), on_note=notes.append).read_bytes() == DATA
    assert notes == []
    assert [headers.get("range") for _, headers in hub.requests] == [None, f"bytes={HALF}-"]


def test_a_host_that_could_not_be_reached_is_not_waited_for_again(hub, tmp_path, monkeypatch):
    """Holds down: behind a firewall, each row of a preset waited for the hub anew."""
    serve_html(hub)
    look_up, tried = socket.getaddrinfo, []

    def fail(host, *arguments, **options):
        if host == "hub.example":
            tried.append(host)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    notes: list[str] = []
    other = replace(ENTRY, name="u", sources=(HubSource("o/other", "v1", "f.gguf"), SECOND))
    with outages_remembered():
        pull_model(ENTRY, Cache(tmp_path / "a"), on_note=notes.append)
        pull_model(other, Cache(tmp_path / "b"), on_note=notes.append)
        assert len(tried) == 1
    assert "cannot be reached (" in notes[0]
    assert "o/other/resolve/v1/f.gguf was not tried, because its host cannot be" in notes[1]
    pull_model(ENTRY, Cache(tmp_path / "c"))
    assert len(tried) == 2, "the next command tries it again"


def test_connecting_takes_less_patience_than_reading(hub, monkeypatch):
    """A host behind a firewall that drops everything held a pull up for 30 s an attempt."""
    patience: list[float] = []
    connect = socket.create_connection

    def note(address, timeout, *rest, **options):
        patience.append(timeout)
        return connect(address, timeout, *rest, **options)

    monkeypatch.setattr(socket, "create_connection", note)
    with http.send(http.Remote(hub.url + "/f"), {}) as response:
        reading: Any = response.fp
        assert reading.raw._sock.gettimeout() == http.TIMEOUT_SECONDS
    assert patience == [http.CONNECT_SECONDS]


ROW = "[target.t]\nsize = 3\n"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("sources = ['hf:a/b@c/d', 'hf:e/f@c/d']", "it decides which bytes"),
        ("source = 'hf:a/b@c/d{1..2}'", "it decides which bytes"),
        ("source = 'hf:a/b@c/d'\nsources = ['hf:a/b@c/d']", "Expected either a source"),
        ("sources = []", "Expected either a source"),
        ("sources = ['file:x', 'hf:a/b@c/d']", "is used in place"),
        ("sources = ['hf:a/b@c/{1..2}']\nfiles = ['x']", "Only a single file is joined"),
        ("sources = ['hf:a/b@c', 'hf:e/f@c']\nfiles = ['x']", "it decides which bytes"),
        ("sources = ['hf:a/b@c', 'hf:e/f@c/d']", "whole repository"),
    ],
)
def test_a_row_whose_sources_cannot_be_told_apart_is_refused(tmp_path, row, message):
    (tmp_path / "m.toml").write_text(ROW + row)
    with pytest.raises(RegistryError, match=message):
        load_files([tmp_path / "m.toml"])


def test_parts_need_the_size_of_the_whole(tmp_path):
    (tmp_path / "m.toml").write_text(f"[target.t]\nsource='hf:a/b@c/{{1..2}}'\nsha256='{DIGEST}'")
    with pytest.raises(RegistryError, match="needs the size of the whole"):
        load_files([tmp_path / "m.toml"])


def test_a_file_that_is_only_joined_has_a_place_of_its_own(tmp_path):
    row = f"source='pypi:a{{1..2}}==1#a/p{{1..2}}.bin'\nsha256='{DIGEST}'"
    (tmp_path / "m.toml").write_text(ROW + row)
    entry = load_files([tmp_path / "m.toml"]).find("target", "t")
    assert Cache(Path("/c")).path(entry) == Path(f"/c/joined/{DIGEST[:16]}/p.bin")


def test_what_is_joined_of_parts_that_are_only_numbers_has_a_name(tmp_path):
    """Its file had an empty name, which is the folder around it."""
    row = f"source='hf:a/b@c/d/{{1..2}}'\nsha256='{DIGEST}'"
    (tmp_path / "m.toml").write_text(ROW + row)
    entry = load_files([tmp_path / "m.toml"]).find("target", "t")
    assert Cache(Path("/c")).path(entry) == Path(f"/c/joined/{DIGEST[:16]}/joined")
