"""`hf:owner/repo:TAG` and `hf:owner/repo/file`: looked up when pulled, found offline when used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from alignpro_lite.errors import DiskSpaceError, ModelFileError, RegistryError
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import Registry
from alignpro_lite.registry.pull import pull_model, pull_reference
from alignpro_lite.registry.references import HubReference
from alignpro_lite.registry.storage import sha256_of
from alignpro_lite.registry.store import ModelStore
from tests.support.hub_server import DATA, DIGEST, HUB_PATH, hub_entry, leftovers

TREE = "/api/models/o/r/tree/main?recursive=true"
BLOB_COMMIT = "c" * 40


def serve_repository(hub, files: Mapping[str, bytes | None], revision: str = "main") -> None:
    """List files and serve those that have bytes; large ones have the digest of DATA."""
    listed: list[dict[str, object]] = [{"type": "directory", "path": "d", "oid": "0", "size": 0}]
    for path, data in files.items():
        size = len(data or b"x")
        row: dict[str, object] = {"type": "file", "path": path, "oid": "0" * 40, "size": size}
        if data == DATA:
            row["lfs"] = {"oid": DIGEST, "size": size, "pointerSize": 134}
        listed.append(row)
        if data is not None:
            hub.files[f"/o/r/resolve/{revision}/{path}"] = data
    tree = TREE.replace("main", revision)
    hub.types[tree] = "application/json; charset=utf-8"
    hub.files[tree] = json.dumps(listed).encode()


FILES = {
    "README.md": None,
    "Model-Q4_K_M.gguf": DATA,
    "Model-Q4_K_S.gguf": None,
    "Model-Q8_0.gguf": None,
    "mmproj-Q4_K_M.gguf": None,
}


def store(tmp_path) -> ModelStore:
    return ModelStore(Registry((), {}), Cache(tmp_path))


@pytest.mark.parametrize(
    "text", ["hf:o/r:Q4_K_M", "hf:o/r:q4_k_m", "hf:o/r/Model-Q4_K_M.gguf", "hf:o/r@main:Q4_K_M"]
)
def test_a_quantisation_or_a_file_is_pulled_and_used_offline(hub, tmp_path, text):
    serve_repository(hub, FILES)
    with pytest.raises(RegistryError, match="is not installed") as caught:
        store(tmp_path).path("target", text)
    assert caught.value.cure == f"Run `alignpro-lite models pull {text}`."
    path = pull_reference(text, Cache(tmp_path))
    assert path == tmp_path / "hf/o/r/main/Model-Q4_K_M.gguf"
    assert path.read_bytes() == DATA
    hub.requests.clear()
    assert store(tmp_path).path("target", text) == path
    assert pull_reference(text, Cache(tmp_path)) == path
    assert hub.requests == [], "what is here needs no network"


def test_a_revision_is_kept_apart(hub, tmp_path):
    serve_repository(hub, FILES, "v2")
    path = pull_reference("hf:o/r@v2:Q4_K_M", Cache(tmp_path))
    assert path == tmp_path / "hf/o/r/v2/Model-Q4_K_M.gguf"
    with pytest.raises(RegistryError, match="is not installed"):
        store(tmp_path).path("target", "hf:o/r:Q4_K_M")


def test_the_digest_that_the_hub_tells_is_checked_now_and_later(hub, tmp_path):
    serve_repository(hub, FILES)
    hub.files["/o/r/resolve/main/Model-Q4_K_M.gguf"] = DATA[:-1] + b"!"
    with pytest.raises(RegistryError, match=f"expected sha256 {DIGEST}"):
        pull_reference("hf:o/r:Q4_K_M", Cache(tmp_path))
    serve_repository(hub, FILES)
    path = pull_reference("hf:o/r:Q4_K_M", Cache(tmp_path))
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(ModelFileError, match="is not what was pulled") as caught:
        store(tmp_path).path("target", "hf:o/r:Q4_K_M")
    assert "models rm hf:o/r:Q4_K_M && alignpro-lite models pull hf:o/r:Q4_K_M" in caught.value.cure


def test_a_split_model_is_pulled_whole_and_its_first_part_is_opened(hub, tmp_path):
    parts = {f"q8/m-Q8_0-0000{n}-of-00003.gguf": bytes([n]) * 10 for n in (1, 2, 3)}
    serve_repository(hub, parts | {"q4/m-Q4_0.gguf": None})
    for text in ("hf:o/r:Q8_0", "hf:o/r/q8/m-Q8_0-00001-of-00003.gguf"):
        path = pull_reference(text, Cache(tmp_path))
        assert path == tmp_path / "hf/o/r/main/q8/m-Q8_0-00001-of-00003.gguf"
        assert len(leftovers(path.parent)) == 3
        assert store(tmp_path).path("target", text) == path
    path.with_name("m-Q8_0-00002-of-00003.gguf").unlink()
    with pytest.raises(RegistryError, match="is not installed"):
        store(tmp_path).path("target", "hf:o/r:Q8_0")
    pull_reference("hf:o/r:Q8_0", Cache(tmp_path))
    assert store(tmp_path).path("target", "hf:o/r:Q8_0") == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:o/r:Q5_K_M", "names no file"),
        ("hf:o/r:Q4", "names no file"),
        ("hf:o/r/Model-Q4_K_N.gguf", r"names no file \(near: .*Model-Q4_K_M.gguf"),
        ("hf:o/r:Model", "names 3 models"),
    ],
)
def test_what_is_not_one_model_is_refused_with_what_there_is(hub, tmp_path, text, message):
    serve_repository(hub, FILES)
    with pytest.raises(RegistryError, match=message) as caught:
        pull_reference(text, Cache(tmp_path))
    assert "Model-Q4_K_M.gguf" in caught.value.cure


def test_a_repository_that_lacks_a_part_is_refused(hub, tmp_path):
    serve_repository(hub, {"m-00001-of-00002.gguf": None})
    with pytest.raises(RegistryError, match="the repository has only m-00001-of-00002"):
        pull_reference("hf:o/r/m-00001-of-00002.gguf", Cache(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        *("hf:", "hf:o", "hf:o/r", "hf:o/r@main", "hf:o/r/x.bin", "hf:o/r/../x.gguf", "hf:o/r:"),
        *("hf:o/r:Q4 K", "hf:o/r@a/b:Q4", "hf:../r:Q4", "hf:o/r//x.gguf", "hf:o/r:Q4\n"),
    ],
)
def test_what_is_no_reference_is_refused(tmp_path, text):
    with pytest.raises(RegistryError):
        store(tmp_path).path("target", text)
    with pytest.raises(RegistryError):
        pull_reference(text, Cache(tmp_path))


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}", b"[3]", b'[{"size": 1}]', b"[" * 100_000, b"\xff", b"<html>"]
)
def test_a_hub_that_answers_nonsense_is_one_error(hub, tmp_path, body):
    hub.files[TREE] = body
    with pytest.raises(RegistryError, match="answered with no list"):
        pull_reference("hf:o/r:Q4", Cache(tmp_path))


def test_a_path_of_the_hub_that_climbs_out_is_refused(hub, tmp_path):
    serve_repository(hub, {"../../../../x-Q4_0.gguf": DATA})
    with pytest.raises(RegistryError, match="stays inside"):
        pull_reference("hf:o/r:Q4_0", Cache(tmp_path))


def test_a_gated_repository_asks_for_the_token(hub, tmp_path):
    hub.statuses[TREE] = 401
    with pytest.raises(
        RegistryError, match=r"the files of hf:o/r@main failed: .* answered 401"
    ) as e:
        pull_reference("hf:o/r:Q4_0", Cache(tmp_path))
    assert "HF_TOKEN" in e.value.cure


def test_an_interrupted_pull_is_kept_when_strays_are_collected(hub, tmp_path):
    serve_repository(hub, FILES)
    hub.drops = [10**6, 1000, 0, 0]  # the list of files comes first
    cache = Cache(tmp_path)
    with pytest.raises(RegistryError):
        pull_reference("hf:o/r:Q4_K_M", cache)
    assert cache.collect_strays([]) == 0
    hub.requests.clear()
    pull_reference("hf:o/r:Q4_K_M", cache)
    assert hub.requests[-1][1]["range"] == "bytes=1000-"


def interrupt_split_pull(hub, cache: Cache) -> None:
    """Leave two whole parts of three and the beginning of the third."""
    parts = {f"q8/m-Q8_0-0000{n}-of-00003.gguf": DATA for n in (1, 2, 3)}
    serve_repository(hub, parts)
    hub.drops = [10**7, 10**7, 10**7, 1000, 0, 0]  # the list of files comes first
    with pytest.raises(RegistryError):
        pull_reference("hf:o/r:Q8_0", cache)
    names = {path.name.removeprefix("m-Q8_0-") for path in cache.root.rglob("m-*")}
    partial = "00003-of-00003.gguf.partial"
    assert names == {"00001-of-00003.gguf", "00002-of-00003.gguf", partial, f"{partial}.etag"}


@pytest.mark.parametrize("text", ["hf:o/r:Q8_0", "hf:o/r/q8/m-Q8_0-00001-of-00003.gguf"])
@pytest.mark.parametrize("is_recorded", [True, False])
def test_all_that_an_interrupted_pull_left_of_a_split_model_is_removed(
    hub, tmp_path, text, is_recorded
):
    """Regression: `models rm` said that it is not installed, and two parts of three stayed."""
    interrupt_split_pull(hub, Cache(tmp_path))
    if not is_recorded:
        (tmp_path / "digests.json").unlink()
    (entry,) = store(tmp_path).removable(text)
    assert Cache(tmp_path).remove(entry) > 2 * len(DATA) + 1000
    assert not (tmp_path / "hf").exists()


def test_parts_that_a_changed_repository_no_longer_has_are_removed_too(hub, tmp_path):
    interrupt_split_pull(hub, Cache(tmp_path))
    newer = {f"q8/m-Q8_0-0000{n}-of-00004.gguf": DATA for n in (1, 2)}
    serve_repository(hub, newer | {f"q8/m-Q8_0-0000{n}-of-00004.gguf": b"x" for n in (3, 4)})
    hub.drops = [10**7, 10**7, 0, 0, 0]
    with pytest.raises(RegistryError):
        pull_reference("hf:o/r:Q8_0", Cache(tmp_path))
    (entry,) = store(tmp_path).removable("hf:o/r:Q8_0")
    Cache(tmp_path).remove(entry)
    Cache(tmp_path).forget(entry)
    assert not (tmp_path / "hf").exists()
    assert json.loads((tmp_path / "digests.json").read_text()) == {}


def test_what_is_installed_is_removed_though_an_older_file_was_recorded(hub, tmp_path):
    serve_repository(hub, {"old-Q8_0.gguf": DATA})
    old = pull_reference("hf:o/r:Q8_0", Cache(tmp_path))
    old.unlink()
    serve_repository(hub, {"new-Q8_0.gguf": DATA})
    pull_reference("hf:o/r:Q8_0", Cache(tmp_path))
    (entry,) = store(tmp_path).removable("hf:o/r:Q8_0")
    assert [file.path for file in entry.files] == ["new-Q8_0.gguf"]


def test_the_parts_of_a_split_model_are_named_by_a_file_that_may_be_asked_for(hub, tmp_path):
    """Regression: the cure named `m`, which is no file and was refused."""
    first = "m-Q8_0-00001-of-00002.gguf"
    serve_repository(hub, {first: None, "m-Q8_0-00002-of-00002.gguf": None, "m-Q8_0.gguf": None})
    with pytest.raises(RegistryError, match="names 2 models") as caught:
        pull_reference("hf:o/r:Q8_0", Cache(tmp_path))
    assert f"Name one as hf:o/r/FILE: {first}, m-Q8_0.gguf." in caught.value.cure


def test_space_for_all_parts_is_checked_before_the_first_is_fetched(hub, tmp_path, monkeypatch):
    """Regression: each file was checked alone, so the disk was full after most of the download."""
    interrupt_split_pull(hub, Cache(tmp_path))
    next(tmp_path.rglob("*-00002-of-00003.gguf")).unlink()
    hub.drops.clear()
    hub.requests.clear()
    needed = 2 * len(DATA) - 1000
    usage = SimpleNamespace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DiskSpaceError, match=f"{needed:,} bytes are needed"):
        pull_reference("hf:o/r:Q8_0", Cache(tmp_path))
    assert [path for path, _ in hub.requests] == [TREE]
    usage.free = needed
    pull_reference("hf:o/r:Q8_0", Cache(tmp_path))


def test_a_long_list_comes_in_pages(hub, tmp_path):
    assert HubReference.parse("hf:o/r:Q4_K_M").chosen(FILES) == ("Model-Q4_K_M.gguf",)
    serve_repository(hub, {"a.txt": None})
    serve_repository(hub, FILES, "more")
    hub.links[TREE] = f'<{hub.url}{TREE.replace("main", "more")}>; rel="next"'
    hub.files["/o/r/resolve/main/Model-Q4_K_M.gguf"] = DATA
    assert pull_reference("hf:o/r:Q4_K_M", Cache(tmp_path)).read_bytes() == DATA


# The hub's own cache.


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A cache as the hub's library lays it out, with one file of DATA at branch v1."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    repository = folder / "models--o--r"
    for name in ("blobs", "refs", f"snapshots/{BLOB_COMMIT}/d"):
        (repository / name).mkdir(parents=True)
    (repository / "blobs" / DIGEST).write_bytes(DATA)
    (repository / "refs/v1").write_text(BLOB_COMMIT)
    (repository / "refs/main").write_text(BLOB_COMMIT)
    link = repository / "snapshots" / BLOB_COMMIT / "d/f.gguf"
    link.symlink_to(f"../../../blobs/{DIGEST}")
    return link


@pytest.mark.parametrize("digest", [DIGEST, None])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_file_of_the_hubs_cache_is_used_in_place(hub, hub_cache, tmp_path, digest, size):
    cache, entry = Cache(tmp_path / "cache"), hub_entry(digest, size)
    assert cache.installed_path(entry) == hub_cache
    notes: list[str] = []
    assert pull_model(entry, cache, on_note=notes.append) == hub_cache
    assert notes == ["target/t is used where the hub's own cache has it."]
    found = ModelStore(Registry((entry,), {}), cache)
    assert found.path("target", "t") == hub_cache
    assert found.path("target", "hf:o/r/d/f.gguf") == hub_cache
    assert cache.verify(entry)[0].state == "ok"
    assert cache.remove(entry) == 0
    assert hub_cache.read_bytes() == DATA
    assert hub.requests == []
    assert not list((tmp_path / "cache").rglob("*.gguf"))


def test_the_folder_of_the_hubs_cache_is_found_by_its_variables(hub_cache, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_CACHE")
    cache = Cache(tmp_path / "cache")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert cache.is_installed(hub_entry())
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not cache.is_installed(hub_entry())
    (tmp_path / "huggingface").mkdir()
    (tmp_path / "hub").rename(tmp_path / "huggingface/hub")
    assert cache.is_installed(hub_entry())


def test_an_altered_file_of_the_hubs_cache_is_left_alone_and_replaced(hub, hub_cache, tmp_path):
    """It must be neither used nor repaired: it belongs to other programs."""
    altered = DATA[:-1] + b"!"
    hub_cache.resolve().write_bytes(altered)
    hub.files[HUB_PATH] = DATA
    cache, entry = Cache(tmp_path / "cache"), hub_entry(DIGEST, len(DATA))
    found = ModelStore(Registry((entry,), {}), cache)
    with pytest.raises(ModelFileError, match="is not what was pulled") as caught:
        found.path("target", "t")
    assert "fetches a copy" in caught.value.cure
    notes: list[str] = []
    path = pull_model(entry, cache, on_note=notes.append)
    assert "is not what was pulled" in notes[0]
    assert path.read_bytes() == DATA
    assert found.path("target", "t") == path
    assert hub_cache.read_bytes() == altered


@pytest.mark.parametrize("damage", ["size", "dangling", "no commit", "climbing"])
def test_an_incomplete_hubs_cache_is_not_used(hub_cache, tmp_path, damage):
    blob, entry = hub_cache.resolve(), hub_entry(DIGEST, len(DATA))
    if damage == "size":
        blob.write_bytes(DATA[:-1])
    elif damage == "dangling":
        blob.unlink()
    else:
        reference = blob.parents[1] / "refs/v1"
        reference.write_text("../" * 3 if damage == "climbing" else "")
    assert not Cache(tmp_path / "cache").is_installed(entry)


def test_a_model_of_the_hubs_cache_is_hashed_once(hub, hub_cache, tmp_path, monkeypatch):
    cache, entry = Cache(tmp_path / "cache"), hub_entry(DIGEST)
    hashed: list[str] = []

    def note(path: Path, label: str) -> str:
        hashed.append(label)
        return sha256_of(path, label)

    monkeypatch.setattr("alignpro_lite.registry.intact.sha256_of", note)
    for _ in range(3):
        pull_model(entry, cache)
        ModelStore(Registry((entry,), {}), cache).path("target", "t")
    assert hashed == ["target/t"]
