"""HTTP: where a key and a request go, and what a message may show."""

from __future__ import annotations

import pytest

from alignpro_lite.errors import shown_url, without_secrets
from alignpro_lite.registry.http import HttpError, Remote, read_body, send
from tests.support.hub_server import serve


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://host/f?signature=secret", "https://host/f"),
        ("https://host/f#secret", "https://host/f"),
        ("https://me:secret@host:8/f", "https://host:8/f"),
        ("https://me:sec@ret@host/f", "https://host/f"),
        ("https://secret@host/f", "https://host/f"),
        ("https://me:sec/ret@host/f", "https://***"),
        ("https://me:sec?ret@host/f", "https://***"),
        ("https://me:sec#ret@host/f", "https://***"),
        ("https://me:sec@ret/secret@host/f", "https://***"),
        ("https://me:sec ret@host/f", "https://host/f"),
        ("https:/me:secret@host", "***"),
        ("//me:secret@[broken", "***"),
        ("me:secret@host/simple", "***"),
    ],
)
def test_what_may_be_secret_is_not_shown(url, shown):
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "address",
    [
        "https://me:it's-hunter2@host/x",
        'https://me:"hunter2"@host/x',
        "https://me:<hunter2>@host/x",
        "https://me:`hunter2@host/x",
        "https://host/x?key='hunter2'",
        "https://host/x#`hunter2`",
        "1https://me:hunter2@host/x",
        "'https://host/y','https://me:hunter2@host/x'",
    ],
)
@pytest.mark.parametrize("sentence", ["{}", "{!r}", "'{}'", "<{}>", "({}).", "a {}, b"])
def test_a_sentence_shows_no_secret_that_holds_quotation_marks(address, sentence):
    """Regression: a quotation mark in a password ended the URL, and all of it was shown."""
    assert "hunter2" not in without_secrets(sentence.format(address))


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("found 'https://host/x?k=v'.", "found 'https://host/x'."),
        ("<https://host/x>, (https://host/y): 404", "<https://host/x>, (https://host/y): 404"),
        ("`https://host/x'y`", "`https://host/x'y`"),
        ("https://host/a?b=c, then https://host/d#e.", "https://host/a, then https://host/d."),
    ],
)
def test_a_sentence_keeps_what_is_around_its_addresses(sentence, shown):
    assert without_secrets(sentence) == shown


@pytest.mark.parametrize("word", ["a", "http://", "'?", "@", "://"])
def test_a_long_text_is_searched_in_linear_time(word):
    assert without_secrets("http://x" + word * 200_000)


def test_a_remote_shows_no_key_and_quotes_one_short_line_without_it():
    remote = Remote("https://host/f", "Bearer secret")
    assert "secret" not in repr(remote)
    assert remote.quoted(b"wrong key\n  secret.") == "wrong key ***"
    in_parts = Remote("http://x", "Bearer two words")
    assert in_parts.quoted(b"wrong key: two words") == "wrong key: ***"
    assert len(remote.quoted(b"long " * 100)) <= 200


def test_no_proxy_is_asked_for_this_machine_but_for_all_others(monkeypatch):
    """Also behind a redirect: a mirror on this machine may lead to a server beyond the proxy."""
    monkeypatch.delenv("no_proxy", raising=False)
    with serve() as hub, serve() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        hub.files["/f"] = b"direct"
        proxy.files["http://elsewhere.example/f"] = b"by proxy"
        hub.redirects["/there"] = "http://elsewhere.example/f"
        for path, found in (("/f", b"direct"), ("/there", b"by proxy")):
            remote = Remote(hub.url + path)
            with send(remote, {}) as response:
                assert read_body(remote, response, 100) == found


def test_a_body_longer_than_allowed_is_refused(monkeypatch):
    monkeypatch.delenv("http_proxy", raising=False)
    with serve() as hub:
        hub.files["/f"] = b"12345"
        remote = Remote(hub.url + "/f")
        with send(remote, {}) as response:
            assert read_body(remote, response, 5) == b"12345"
        with send(remote, {}) as response, pytest.raises(HttpError, match="more than 4 bytes"):
            read_body(remote, response, 4)
