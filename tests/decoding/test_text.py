"""Token bytes to text: whole characters, and stop strings wherever the pieces are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.decoding.reasoning import ReasoningSplitter, split_stream
from alignpro_lite.decoding.text import StopStrings, decoded


def text_pieces(pieces, stops):
    """The text of a model that does not reason."""
    passages = split_stream(decoded(pieces), ReasoningSplitter(None), stops)
    return (passage.text for passage in passages)


def cut(whole, places):
    """Split bytes or text at places, some of which may repeat or lie outside."""
    borders = [0, *sorted(min(place, len(whole)) for place in places), len(whole)]
    return [whole[a:b] for a, b in pairwise(borders)]


cuts = st.lists(st.integers(0, 60), max_size=12)


@given(st.text(max_size=40), cuts)
def test_any_split_of_the_bytes_gives_the_same_text(text, places):
    pieces = list(text_pieces(iter(cut(text.encode(), places)), StopStrings([])))
    assert "".join(pieces) == text
    assert all(pieces), "an empty piece"


@given(st.text(max_size=40), cuts)
def test_a_character_comes_with_its_last_byte_and_not_later(text, places):
    shown: list[str] = []
    fed = b""

    def pieces():
        nonlocal fed
        for piece in cut(text.encode(), places):
            fed += piece
            yield piece
            assert "".join(shown) == fed.decode(errors="ignore")

    for characters in text_pieces(pieces(), StopStrings([])):
        shown.append(characters)
    assert "".join(shown) == text


@given(st.binary(max_size=40), cuts)
def test_any_split_of_damaged_bytes_gives_the_same_text(raw, places):
    pieces = text_pieces(iter(cut(raw, places)), StopStrings([]))
    assert "".join(pieces) == raw.decode(errors="replace")


def test_an_unfinished_character_at_the_end_is_shown_as_damaged():
    assert "".join(text_pieces(iter([b"a\xf0\x9f", b"\x98"]), StopStrings([]))) == "a\ufffd"


def up_to_first_stop(text, stops):
    """The text before whichever stop string is complete first, read character by character."""
    for end in range(len(text) + 1):
        begins = [end - len(stop) for stop in stops if stop and text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)], True
    return text, False


@given(
    st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), cuts
)
def test_text_ends_at_the_first_stop_string_whatever_the_pieces(text, stops, places):
    """With `b` and `abc`, the pieces a|b|c used to give `a` where abc gave nothing."""
    watcher = StopStrings(stops)
    shown = "".join(text_pieces((piece.encode() for piece in cut(text, places)), watcher))
    assert (shown, watcher.found) == up_to_first_stop(text, stops)


@given(st.text("ab", max_size=20), st.text("ab", min_size=1, max_size=5))
def test_only_what_may_begin_a_stop_string_is_held_back(text, stop):
    watcher = StopStrings([stop])
    shown = ""
    for place, character in enumerate(text, 1):
        shown += watcher.feed(character)
        if watcher.found:
            return
        held = text[:place].removeprefix(shown)
        assert stop.startswith(held)
        assert len(held) < len(stop)


def test_nothing_is_read_after_a_stop_string():
    def pieces():
        yield b"one E"
        yield b"ND two"
        pytest.fail("read on after the stop string")

    assert list(text_pieces(pieces(), StopStrings(["END"]))) == ["one "]


def test_nothing_is_shown_after_a_stop_string():
    watcher = StopStrings(["x"])
    assert watcher.feed("ax") == "a"
    assert watcher.feed("more") == ""
    assert watcher.end() == ""


def test_a_stop_string_may_hold_multi_byte_characters():
    raw = "schön 🙂 weiter".encode()
    pieces = (raw[i : i + 1] for i in range(len(raw)))
    assert "".join(text_pieces(pieces, StopStrings(["🙂"]))) == "schön "


def test_an_empty_stop_string_stops_nothing():
    assert list(text_pieces(iter([b"text"]), StopStrings([""]))) == ["text"]
