"""Downloads of one address from a local server: resume, digests, tokens, sizes."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry import download as download_module
from alignpro_lite.registry.download import ExpectedFile, download
from alignpro_lite.registry.http import Remote
from tests.support.hub_server import DATA, DIGEST, HALF, everything_said, leftovers, serve


def expected(sha256: str | None = DIGEST, size: int | None = None) -> ExpectedFile:
    return ExpectedFile("the file", sha256, size, "Do this.")


def test_a_download_is_whole_hashed_and_leaves_nothing_else(hub, tmp_path):
    steps = []
    digest = download(Remote(hub.url + "/f"), tmp_path / "f", expected(None), steps.append)
    assert digest == DIGEST
    assert (tmp_path / "f").read_bytes() == DATA
    assert leftovers(tmp_path) == {"f"}
    assert steps[-1].done == steps[-1].total == len(DATA)
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_a_dropped_connection_is_resumed_where_it_broke(hub, tmp_path):
    hub.drops = [HALF, 1000]
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected()) == DIGEST
    asked = [headers.get("range") for _, headers in hub.requests]
    assert asked == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]


def test_a_connection_that_always_breaks_ends_and_the_next_call_resumes(hub, tmp_path):
    hub.drops = [HALF, 0, 0, 0]
    with pytest.raises(RegistryError, match="resumes"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected())
    assert leftovers(tmp_path) == {"f.partial", "f.partial.etag"}
    hub.requests.clear()
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected()) == DIGEST
    assert hub.requests[0][1]["range"] == f"bytes={HALF}-"


def test_a_server_without_ranges_starts_over(hub, tmp_path):
    hub.ranges = False
    hub.drops = [HALF]
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected()) == DIGEST


def test_a_file_that_changed_between_two_attempts_is_not_stitched(hub, tmp_path):
    (tmp_path / "f.partial").write_bytes(b"x" * HALF)
    (tmp_path / "f.partial.etag").write_text('"zero"')
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected(None)) == DIGEST


def test_a_part_that_nothing_vouches_for_is_not_used(hub, tmp_path):
    (tmp_path / "f.partial").write_bytes(b"x" * HALF)
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected(None)) == DIGEST


def test_a_weak_etag_does_not_vouch(hub, tmp_path):
    hub.etag = 'W/"one"'
    hub.drops = [HALF, 0, 0]
    with pytest.raises(RegistryError):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected(None))
    assert not (tmp_path / "f.partial.etag").exists()


def test_a_partial_that_is_whole_already_is_only_checked(hub, tmp_path):
    (tmp_path / "f.partial").write_bytes(DATA)
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected(size=len(DATA))) == DIGEST
    assert hub.requests == []
    (tmp_path / "f").rename(tmp_path / "f.partial")
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected()) == DIGEST
    assert [headers["range"] for _, headers in hub.requests] == [f"bytes={len(DATA)}-"]


def test_a_partial_longer_than_the_file_starts_over(hub, tmp_path):
    (tmp_path / "f.partial").write_bytes(DATA + b"more")
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected()) == DIGEST


def test_a_whole_but_wrong_file_is_deleted_and_reported(hub, tmp_path):
    with pytest.raises(RegistryError) as caught:
        download(Remote(hub.url + "/f"), tmp_path / "f", expected("0" * 64))
    assert "0" * 64 in caught.value.problem
    assert DIGEST in caught.value.problem
    assert caught.value.cure == "Do this."
    assert leftovers(tmp_path) == set()


def test_a_wrong_partial_is_found_by_the_digest_and_fetched_anew(hub, tmp_path):
    (tmp_path / "f.partial").write_bytes(b"x" * HALF)
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected()) == DIGEST
    assert leftovers(tmp_path) == {"f"}
    (tmp_path / "f.partial").write_bytes(b"x" * HALF)
    with pytest.raises(RegistryError, match="expected sha256"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected("0" * 64))
    assert leftovers(tmp_path) == {"f"}


def test_a_wrong_size_is_refused_before_the_body_is_read(hub, tmp_path):
    with pytest.raises(RegistryError, match="expected 7 bytes, found 1,048,576"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected(size=7))
    assert leftovers(tmp_path) == set()


def test_a_login_page_is_not_taken_for_a_model(hub, tmp_path):
    hub.types["/f"] = "text/html; charset=utf-8"
    with pytest.raises(RegistryError, match="found a web page"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected(None))


@pytest.mark.parametrize(
    ("status", "cure"), [(404, "Correct the source"), (401, "HF_TOKEN"), (403, "HF_TOKEN")]
)
def test_a_refusal_names_the_address_and_the_cure_and_is_not_repeated(hub, tmp_path, status, cure):
    hub.statuses["/f?signature=secret"] = status
    with pytest.raises(RegistryError, match=f"/f answered {status}") as caught:
        download(Remote(hub.url + "/f?signature=secret"), tmp_path / "f", expected())
    assert cure in caught.value.cure
    assert "secret" not in str(caught.value)
    assert len(hub.requests) == 1


def test_a_busy_server_is_asked_again(hub, tmp_path):
    hub.statuses["/f"] = 503
    with pytest.raises(RegistryError, match="answered 503"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected())
    assert len(hub.requests) == 3


def test_no_server_at_all_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "RETRY_PAUSES", ())
    with pytest.raises(RegistryError, match="cannot be reached"):
        download(Remote("http://127.0.0.1:9/f"), tmp_path / "f", expected())


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "ftp://a/b", "", "http://", "x"),
        *("http://[x/f", "http://a:port/f", "http://a\x01b/f"),
    ],
)
def test_only_http_addresses_are_opened(tmp_path, url):
    with pytest.raises(RegistryError, match="expected an http or https address"):
        download(Remote(url), tmp_path / "f", expected())


def test_a_token_stays_with_its_origin(hub, tmp_path):
    with serve() as elsewhere:
        elsewhere.files["/blob"] = DATA
        hub.redirects["/start"] = "/middle"
        hub.redirects["/middle"] = elsewhere.url + "/blob"
        download(Remote(hub.url + "/start", "Bearer t"), tmp_path / "f", expected())
        assert [headers.get("authorization") for _, headers in hub.requests] == ["Bearer t"] * 2
        assert "authorization" not in elsewhere.requests[0][1]


def test_a_redirect_to_a_file_of_this_machine_is_refused(hub, tmp_path):
    hub.redirects["/start"] = "ftp://127.0.0.1/f"
    with pytest.raises(RegistryError, match="not safe"):
        download(Remote(hub.url + "/start"), tmp_path / "f", expected())


def test_too_little_space_is_found_before_the_download(hub, tmp_path, monkeypatch):
    usage = SimpleNamespace(total=0, used=0, free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(RegistryError, match=r"1,048,576 bytes are needed .* 1,000 are free"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected())


@pytest.mark.parametrize(
    "location", ["http://[x/f", "http://h:port/f?sig=secret", "//[", "http://"]
)
def test_a_redirect_to_no_address_is_one_clear_error(hub, tmp_path, location):
    hub.redirects["/start"] = location
    with pytest.raises(RegistryError) as caught:
        download(Remote(hub.url + "/start"), tmp_path / "f", expected())
    assert "secret" not in everything_said(caught.value)


@pytest.mark.parametrize("size", [1000, HALF, len(DATA) - 1])
def test_a_body_without_a_length_stops_at_the_declared_size(hub, tmp_path, size):
    """A server that never ends filled the disk."""
    hub.endless.add("/f")
    with pytest.raises(RegistryError, match=f"expected {size:,} bytes, the source sends more"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected(size=size))
    assert leftovers(tmp_path) == set()


def test_a_body_of_unknown_size_stops_before_the_disk_is_full(hub, tmp_path, monkeypatch):
    left = iter([1 << 40, 1 << 40, 1 << 40, 1 << 20])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=next(left)))
    hub.endless.add("/f")
    with pytest.raises(RegistryError, match="1,048,576 are free"):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected())
    assert leftovers(tmp_path) == set()


@pytest.mark.parametrize("length", ["9" * 5000, "9" * 18, "-5", "many", "1e9", ""])
def test_an_odd_length_is_one_clear_error(hub, tmp_path, length):
    hub.lengths["/f"] = length
    with pytest.raises(RegistryError):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected("0" * 64))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a\nb", b"", b'"zero"\x00'])
def test_a_damaged_note_of_the_version_does_not_stop_a_download(hub, tmp_path, content):
    (tmp_path / "f.partial").write_bytes(DATA[:HALF])
    (tmp_path / "f.partial.etag").write_bytes(content)
    assert download(Remote(hub.url + "/f"), tmp_path / "f", expected(None)) == DIGEST
    assert leftovers(tmp_path) == {"f"}


def test_a_version_that_cannot_be_told_leaves_no_note(hub, tmp_path):
    """The note of a download that was refused at its headers stayed."""
    hub.types["/f"] = "text/html"
    with pytest.raises(RegistryError):
        download(Remote(hub.url + "/f"), tmp_path / "f", expected())
    assert leftovers(tmp_path) == set()
