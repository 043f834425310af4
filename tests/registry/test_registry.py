"""models.toml: sources, rows, merging, look-up, and the cache that mirrors it."""

from __future__ import annotations

import hashlib
import re
import string
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from alignpro_lite.errors import RegistryError
from alignpro_lite.registry import models_toml as registry
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.entries import (
    KINDS,
    BundleRecipe,
    Entry,
    File,
    Preset,
    Registry,
    RewardRecipe,
)
from alignpro_lite.registry.models_toml import load_files
from alignpro_lite.registry.sources import HubSource, LocalSource, WheelSource, parse_source
from alignpro_lite.registry.store import ModelStore

FOLDER = Path("/somewhere")
WORD = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
PART = st.text(string.ascii_letters + string.digits + "._- #@é", min_size=1, max_size=8).filter(
    lambda part: part not in (".", "..")
)
PATHS = st.lists(PART, min_size=1, max_size=3).map("/".join)
HUBS = st.builds(
    HubSource,
    st.tuples(WORD, WORD).map("/".join),
    WORD,
    st.one_of(st.just(""), PATHS),
)
WHEELS = st.builds(
    WheelSource,
    WORD,
    st.from_regex(r"[0-9][0-9a-z.!+]{0,8}", fullmatch=True),
    PATHS,
)
LOCALS = st.builds(LocalSource, PATHS.map(lambda path: Path("/") / path))


@given(st.one_of(HUBS, WHEELS, LOCALS))
def test_a_source_survives_printing_and_parsing(source):
    assert parse_source(str(source), FOLDER) == source


@given(st.one_of(st.text(), st.tuples(st.sampled_from(["hf:", "pypi:", "file:"]), st.text())))
def test_garbage_gives_a_source_or_a_registry_error(text):
    text = text if isinstance(text, str) else "".join(text)
    try:
        source = parse_source(text, FOLDER)
    except RegistryError:
        return
    assert parse_source(str(source), FOLDER) == source


@pytest.mark.parametrize(
    "text",
    [
        "hf:a/b@main/../../x",
        "hf:a/b@main//etc/passwd",
        "hf:../b@main/x",
        "hf:a/b@../x",
        "pypi:a==1#../x",
        "pypi:a==1#/etc/passwd",
        "pypi:a==1#x\\..\\y",
        "pypi:a==1#C:/x",
        "pypi:a==../1#x",
        "http://example.org/x",
        "hf:a/b/x",
        "pypi:a#x",
        "file:",
        "file:a\0b",
        "",
    ],
)
def test_sources_that_leave_their_folder_or_have_no_form_are_refused(text):
    with pytest.raises(RegistryError):
        parse_source(text, FOLDER)


def test_a_relative_file_starts_at_the_folder_of_the_toml(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_source("file:m/x.gguf", tmp_path) == LocalSource(tmp_path / "m/x.gguf")
    assert parse_source("file:/abs/x.gguf", tmp_path) == LocalSource(Path("/abs/x.gguf"))
    assert parse_source("file:~/x.gguf", tmp_path) == LocalSource(Path("/home/someone/x.gguf"))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_file_has_the_small_pair_from_one_download():
    shipped = load_files([registry.SHIPPED_FILE])
    bundle, target, _ = shipped.preset("small")
    assert isinstance(bundle.recipe, BundleRecipe)
    assert shipped.downloadable(bundle).sources == target.sources
    assert shipped.downloadable(bundle).files == target.files
    cache = Cache(Path("/cache"))
    assert cache.path(shipped.downloadable(bundle)) == cache.path(target)


def test_the_shipped_file_has_the_models_of_the_paper_pinned_and_licensed():
    shipped = load_files([registry.SHIPPED_FILE])
    assert shipped.find("prompter", "phi-3.5-mini-instruct").licence == "MIT"
    assert shipped.find("prompter", "qwen2.5-1.5b-instruct").licence == "Apache-2.0"
    assert shipped.find("target", "llama-3.1-8b-instruct").size == 4920739232
    for entry in shipped.entries:
        for source in entry.sources:
            if isinstance(source, HubSource):
                assert len(source.revision) == 40, entry.key
        if entry.recipe is None:
            assert entry.licence, entry.key
            assert entry.context, entry.key


def test_the_file_at_the_top_of_the_repository_is_the_shipped_one():
    top = Path(__file__).parents[2] / "models.toml"
    assert top.resolve() == registry.SHIPPED_FILE.resolve()


def test_a_row_of_the_users_file_replaces_and_adds(tmp_path, monkeypatch):
    mine = """
        [preset.default]
        bundle = "small"
        target = "mine"
        [target.mine]
        source = "file:mine.gguf"
        [target.smollm2-135m-instruct]
        source = "hf:a/b@main/c.gguf"
    """
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", str(write(tmp_path / "mine.toml", mine)))
    known = registry.load()
    bundle, target = known.preset("default")
    assert target.sources == (LocalSource(tmp_path / "mine.gguf"),)
    assert bundle.name == "small"
    assert known.preset("small")[1].name == "smollm2-135m-instruct"
    replaced = known.find("target", "smollm2-135m-instruct")
    assert replaced.files == (File("c.gguf"),)
    assert known.find("prompter", "smollm2-135m-instruct").files[0].sha256


def test_the_users_file_lies_in_the_configuration_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ALIGNPRO_LITE_MODELS", raising=False)
    monkeypatch.setattr(registry, "default_user_file", lambda: tmp_path / "models.toml")
    shipped = registry.load()
    write(tmp_path / "models.toml", '[reward.mine]\nsource = "file:r"')
    assert {entry.key for entry in registry.load().entries} - {
        entry.key for entry in shipped.entries
    } == {"reward/mine"}


def test_a_users_file_that_is_named_and_missing_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_LITE_MODELS", str(tmp_path / "no.toml"))
    with pytest.raises(RegistryError, match=r"no\.toml"):
        registry.load()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[target.x]\nsource='hf:a/b@c/d'\nsha265='0'",
            "unknown key target.x.sha265 = '0' (near: sha256)",
        ),
        (
            "[targets.x]\nsource='hf:a/b@c/d'",
            "unknown key targets = {'x': {'source': 'hf:a/b@c/d'}} (near: target)",
        ),
        ("[target.x]\nlicence='MIT'", "Expected either a source, or sources"),
        ("[target.x]\nsource=3", "target.x.source must be text that is not empty, found 3"),
        (
            "[target.x]\nsource='hf:a/b@c/d'\nsize='big'",
            "target.x.size must be a whole number, at least 1",
        ),
        ("[target.x]\nsource='hf:a/b@c/d'\nsize=true", "target.x.size must be a whole number"),
        (
            "[target.x]\nsource='hf:a/b@c/d'\nsize=0",
            "target.x.size must be a whole number, at least 1, found 0",
        ),
        (
            "[target.x]\nsource='hf:a/b@c/d'\ncontext=-1",
            "target.x.context must be a whole number, at least 1, found -1",
        ),
        (
            "[target.x]\nsource='hf:a/b@c/d'\nsha256='abc'",
            "target.x.sha256 must be text like `[0-9a-fA-F]{64}`, found 'abc'",
        ),
        ("[target.x]\nsource='hf:a/b@c'", "whole repository"),
        ("[target.x]\nsource='hf:a/b@c'\nfiles=[]", "different paths"),
        ("[target.x]\nsource='hf:a/b@c'\nfiles=['a','a']", "different paths"),
        ("[target.x]\nsource='hf:a/b@c'\nfiles=['../a']", "stays inside"),
        (
            "[target.x]\nsource='hf:a/b@c'\nfiles=[{path='a', md5='x'}]",
            "unknown key target.x.files.0.md5 = 'x'",
        ),
        (
            "[target.x]\nsource='hf:a/b@c'\nfiles=[3]",
            "target.x.files.0 must be text or a table, found 3",
        ),
        (f"[target.x]\nsource='hf:a/b@c'\nfiles=['a']\nsha256='{'a' * 64}'", "for each file"),
        ("[target.'../x']\nsource='hf:a/b@c/d'", "Expected a name"),
        ("[target.'a/b']\nsource='hf:a/b@c/d'", "Expected a name"),
        ("target = 3", "target must be a table, found 3"),
        ("[target]\nx = 3", "target.x must be a table, found 3"),
        ("[preset.p]\nbundle='x'\ntarget='nope'", "No bundle is named 'x'"),
        ("[preset.p]\nbundle='x'", "lacks the key preset.p.target"),
        ("[preset.'a/b']\nbundle='x'\ntarget='y'", "Expected a name"),
        ("[bundle.b]\nprompter='nope'\nmode='augment'\nprecision='int4'", "No prompter is named"),
        (
            "[bundle.b]\nprompter='p'\nmode='shout'\nprecision='int4'",
            'bundle.b.mode must be "augment" or "rewrite", found \'shout\'',
        ),
        (
            "[bundle.b]\nprompter='p'\nmode='rewrite'\nprecision='int2'",
            'bundle.b.precision must be "fp16"',
        ),
        ("[bundle.b]\nprompter='p'\nsize=3", "unknown key bundle.b.size = 3"),
        ("= 3", "not valid TOML"),
        ("x = " + "[" * 20000, "not valid TOML"),
    ],
)
def test_a_wrong_row_is_refused_with_its_place(tmp_path, text, message):
    path = write(tmp_path / "models.toml", text)
    with pytest.raises(RegistryError) as caught:
        load_files([path])
    assert message in caught.value.problem
    assert "\n" not in caught.value.problem[:200]
    assert caught.value.cure


@pytest.mark.parametrize(
    ("key", "row"),
    [
        ("preset.p", "bundle = 'x'\ntarget = 'y'"),
        ("bundle.b", "prompter = 'no'\nmode = 'augment'\nprecision = 'int4'"),
    ],
)
def test_a_name_that_points_nowhere_is_shown_where_it_is(tmp_path, key, row):
    """Neither the file nor the row was named, and the cure was a list that fails likewise."""
    path = write(tmp_path / "models.toml", f"[{key}]\n{row}")
    with pytest.raises(RegistryError, match=re.escape(f"{path}, [{key}]: No ")) as caught:
        load_files([registry.SHIPPED_FILE, path])
    assert "models list" not in caught.value.cure


def test_a_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "models.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RegistryError, match="expected UTF-8 text, found UTF-16"):
        load_files([tmp_path / "models.toml"])


def test_an_unknown_name_lists_near_names():
    shipped = load_files([registry.SHIPPED_FILE])
    with pytest.raises(RegistryError, match=r"near: llama-3.1-8b-instruct"):
        shipped.find("target", "llama-3.1-8b")
    with pytest.raises(RegistryError, match=r"near: target/smollm2-135m-instruct"):
        shipped.named("target/smolm2-135m-instruct")


def test_a_name_alone_means_all_kinds_and_a_key_means_one():
    shipped = load_files([registry.SHIPPED_FILE])
    both = shipped.named("smollm2-135m-instruct")
    assert {entry.kind for entry in both} == {"prompter", "target"}
    assert [entry.kind for entry in shipped.named("target/smollm2-135m-instruct")] == ["target"]


def test_a_preset_is_all_its_models_or_one_of_a_kind():
    shipped = load_files([registry.SHIPPED_FILE])
    assert [entry.key for entry in shipped.named("small")] == [
        "bundle/small",
        "target/smollm2-135m-instruct",
        "reward/default",
    ]
    assert [entry.key for entry in shipped.named("target/small")] == [
        "target/smollm2-135m-instruct"
    ]
    with pytest.raises(RegistryError, match=r"No preset is named 'smal' \(near: small\)"):
        shipped.preset("smal")


def test_every_key_of_the_shipped_file_is_documented_at_its_top():
    text = registry.SHIPPED_FILE.read_text(encoding="utf-8")
    header = text[: text.index("[preset.default]")]
    keys = {
        key for kind in KINDS for row in tomllib.loads(text).get(kind, {}).values() for key in row
    }
    assert all(key in header for key in keys)


# The cache.

HUB_FILE = Entry("target", "t", (HubSource("a/b", "main", "x/t.gguf"),), (File("t.gguf"),))


def install(cache: Cache, entry: Entry, data: bytes = b"weights") -> None:
    for file in entry.files:
        path = cache.file_path(entry, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_the_cache_folder_is_the_option_then_the_variable_then_the_platforms(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", str(tmp_path / "variable"))
    assert Cache.open(tmp_path / "option").root == tmp_path / "option"
    assert Cache.open().root == tmp_path / "variable"
    monkeypatch.setenv("ALIGNPRO_LITE_CACHE", "")
    assert Cache.open().root.name == "alignpro-lite"
    monkeypatch.chdir(tmp_path)
    assert Cache.open(Path("relative")).root == tmp_path / "relative"


def test_a_folder_is_installed_when_all_its_files_are_here(tmp_path):
    cache = Cache(tmp_path)
    entry = Entry(
        "prompter", "p", (HubSource("a/b", "main", ""),), (File("x"), File("y/z")), is_folder=True
    )
    install(cache, entry)
    assert cache.is_installed(entry)
    assert cache.installed_path(entry) == tmp_path / "hf/a/b/main"
    cache.file_path(entry, entry.files[1]).unlink()
    assert not cache.is_installed(entry)


def test_verify_finds_a_single_flipped_bit_and_a_missing_file(tmp_path):
    cache = Cache(tmp_path)
    install(cache, HUB_FILE)
    assert cache.verify(HUB_FILE)[0].state == "unrecorded"
    cache.record(HUB_FILE, HUB_FILE.files[0], hashlib.sha256(b"weights").hexdigest())
    assert cache.verify(HUB_FILE)[0].state == "ok"
    install(cache, HUB_FILE, b"weighus")
    assert cache.verify(HUB_FILE)[0].state == "altered"
    cache.path(HUB_FILE).unlink()
    assert cache.verify(HUB_FILE)[0].state == "missing"


def test_the_first_recorded_digest_stays_until_it_is_forgotten(tmp_path):
    cache = Cache(tmp_path)
    file = HUB_FILE.files[0]
    cache.record(HUB_FILE, file, "a" * 64)
    cache.record(HUB_FILE, file, "b" * 64)
    assert cache.digest(HUB_FILE, file) == "a" * 64
    cache.remove(HUB_FILE)
    assert cache.digest(HUB_FILE, file) == "a" * 64
    cache.forget(HUB_FILE)
    assert cache.digest(HUB_FILE, file) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}', "\udcff"])
def test_a_damaged_record_of_digests_is_one_clear_error(tmp_path, text):
    (tmp_path / "digests.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RegistryError, match=r"digests\.json"):
        Cache(tmp_path).digest(HUB_FILE, HUB_FILE.files[0])


def test_removing_leaves_no_partial_and_no_empty_folder(tmp_path):
    cache = Cache(tmp_path)
    install(cache, HUB_FILE)
    path = cache.path(HUB_FILE)
    path.with_name(path.name + ".partial").write_bytes(b"12345")
    path.with_name(path.name + ".partial.etag").write_bytes(b"1")
    assert cache.remove(HUB_FILE) == len("weights") + 5 + 1
    assert not (tmp_path / "hf").exists()
    assert cache.remove(HUB_FILE) == 0


def test_removing_keeps_the_neighbours(tmp_path):
    cache = Cache(tmp_path)
    other = Entry("target", "o", (HubSource("a/b", "main", "x/o.gguf"),), (File("o.gguf"),))
    install(cache, HUB_FILE)
    install(cache, other)
    cache.remove(HUB_FILE)
    assert cache.is_installed(other)


def test_a_built_bundle_is_removed_as_a_whole(tmp_path):
    cache = Cache(tmp_path)
    bundle = Entry("bundle", "b", is_folder=True, recipe=BundleRecipe("p", "augment", "int4"))
    built = cache.path(bundle)
    # By an interrupted removal, by other versions of the package and by a row that said otherwise.
    left = (f".{built.name}.deleted", "b", "b-0123abcd", "b-4567cdef")
    for name in (built.name, *left):
        (tmp_path / "bundles" / name / "sub").mkdir(parents=True)
        (tmp_path / "bundles" / name / "sub/x").write_bytes(b"123")
    (tmp_path / "bundles/b-b").mkdir()  # another row's
    assert cache.remove(bundle) == 12
    assert [path.name for path in (tmp_path / "bundles").iterdir()] == ["b-b"]


def test_a_row_that_says_otherwise_does_not_find_what_was_built_before(tmp_path):
    """A row without an adapter kept its bundle when its precision, mode or prompter changed."""
    recipes: list[BundleRecipe | RewardRecipe] = [
        BundleRecipe("p", "augment", "int4"),
        BundleRecipe("q", "augment", "int4"),
        BundleRecipe("p", "rewrite", "int4"),
        BundleRecipe("p", "augment", "fp32"),
        RewardRecipe("p", tmp_path / "adapter", "int8"),
        RewardRecipe("q", tmp_path / "adapter", "int8"),
        RewardRecipe("p", tmp_path / "adapter", "fp32"),
        RewardRecipe("p", tmp_path / "adapter", "fp32", {"kind": 0.5}),
    ]
    entries = [Entry("bundle", "b", is_folder=True, recipe=recipe) for recipe in recipes]
    assert len({Cache(tmp_path).path(entry) for entry in entries}) == len(recipes)
    said = Entry("bundle", "b", recipe=structs.replace(recipes[0], description="x"))
    assert Cache(tmp_path).path(said) == Cache(tmp_path).path(entries[0])


def test_the_users_own_file_is_used_in_place_and_never_removed(tmp_path):
    own = tmp_path / "own.gguf"
    entry = Entry("target", "own", (LocalSource(own),))
    cache = Cache(tmp_path / "cache")
    with pytest.raises(RegistryError, match="should be at"):
        cache.installed_path(entry)
    own.write_bytes(b"x")
    assert cache.installed_path(entry) == own
    with pytest.raises(RegistryError, match="never deleted"):
        cache.remove(entry)
    assert own.exists()


def store(cache: Cache, *entries: Entry) -> ModelStore:
    return ModelStore(Registry(entries, {"default": Preset("b", "t")}), cache)


BUNDLE = Entry("bundle", "b", is_folder=True, recipe=BundleRecipe("p", "augment", "int4"))


def test_default_is_the_model_of_its_kind_in_the_preset(tmp_path):
    found = store(Cache(tmp_path), HUB_FILE, BUNDLE)
    install(found.cache, HUB_FILE)
    assert found.path("target", "default") == found.cache.path(HUB_FILE)
    with pytest.raises(RegistryError, match="The preset default has no reward"):
        found.path("reward", "default")


def test_default_follows_the_preset_and_a_name_wins(tmp_path):
    other = replace(HUB_FILE, name="o", sources=(HubSource("a/b", "main", "x/o.gguf"),))
    presets = {"default": Preset("b", "t"), "small": Preset("b", "o")}
    found = ModelStore(Registry((HUB_FILE, other, BUNDLE), presets), Cache(tmp_path), "small")
    for entry in (HUB_FILE, other):
        install(found.cache, entry)
    assert found.path("target", "default") == found.cache.path(other)
    assert found.path("target", "t") == found.cache.path(HUB_FILE)


def test_a_row_of_a_split_model_opens_its_first_part(tmp_path):
    names = [f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
    rows = f"[target.t]\nsource = 'hf:a/b@c/q8'\nfiles = {names}"
    known = load_files([write(tmp_path / "m.toml", rows)])
    cache, entry = Cache(tmp_path / "c"), known.find("target", "t")
    install(cache, entry)
    assert ModelStore(known, cache).path("target", "t") == cache.path(entry) / names[0]
    cache.file_path(entry, entry.files[1]).unlink()
    with pytest.raises(RegistryError, match="is not installed"):
        ModelStore(known, cache).path("target", "t")


def test_resolve_prefers_a_path_then_a_name_and_says_how_to_pull(tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError) as caught:
        store(cache, HUB_FILE).path("target", "t")
    assert "alignpro-lite models pull target/t" in caught.value.cure
    install(cache, HUB_FILE)
    assert store(cache, HUB_FILE).path("target", "t") == cache.path(HUB_FILE)
    assert store(cache, HUB_FILE).path("target", "target/t") == cache.path(HUB_FILE)
    (tmp_path / "t").write_bytes(b"")
    assert store(cache, HUB_FILE).path("target", "t") == Path("t")


@pytest.mark.parametrize("text", ["tt", "no/such.gguf", "~nobody-here/x", "x" * 9000, "a\0b", ""])
def test_resolve_says_neither_file_nor_name(tmp_path, text):
    with pytest.raises(RegistryError, match="neither a file here nor a target"):
        store(Cache(tmp_path), HUB_FILE).path("target", text)


def test_a_bundle_that_is_not_built_names_the_command_that_needs_no_torch(tmp_path):
    bundle = Entry("bundle", "b", is_folder=True, recipe=BundleRecipe("p", "augment", "int4"))
    with pytest.raises(RegistryError) as caught:
        store(Cache(tmp_path), bundle).path("bundle", "b")
    assert "alignpro-lite models pull bundle/b" in caught.value.cure


RECIPES = """
    [prompter.p]
    source = "hf:a/b@main/p.gguf"
    [reward.r]
    source = "hf:a/b@main/r.safetensors"
"""


def test_recipes_name_their_adapter_by_package_or_by_folder(tmp_path, monkeypatch):
    (tmp_path / "adapters/learned").mkdir(parents=True)
    monkeypatch.setattr(
        "alignpro_lite.registry.models_toml.SHIPPED_ADAPTERS", tmp_path / "adapters"
    )
    known = load_files(
        [
            write(
                tmp_path / "m.toml",
                RECIPES
                + """
                [bundle.b]
                prompter = "p"
                adapter = "learned"
                mode = "augment"
                precision = "int4"
                [reward.mine]
                base = "r"
                adapter = "file:own"
                precision = "int8"
                weights = { kind = 0.5 }
                """,
            )
        ]
    )
    bundle, reward = known.find("bundle", "b"), known.find("reward", "mine")
    assert bundle.recipe == BundleRecipe("p", "augment", "int4", tmp_path / "adapters/learned")
    assert reward.recipe == RewardRecipe("r", tmp_path / "own", "int8", {"kind": 0.5})
    assert known.downloadable(reward).name == "r"
    assert reward.build_command == "alignpro-lite export bundle reward/mine"
    assert Cache(tmp_path).path(reward).parent == tmp_path / "rewards"
    (tmp_path / "own").mkdir()
    first = Cache(tmp_path).path(reward)
    (tmp_path / "own/weights").write_bytes(b"1")
    second = Cache(tmp_path).path(reward)
    assert second != first, "a new adapter must not find the old bundle"
    heavier = replace(reward, recipe=structs.replace(reward.recipe, part_weights={"kind": 1.0}))
    assert Cache(tmp_path).path(heavier) != second, "nor must new weights"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('base = "r"\nprecision = "int8"', "lacks the key reward.x.adapter"),
        ('base = "r"\nadapter = "../x"\nprecision = "int8"', "No adapter named '../x'"),
        ('base = "r"\nadapter = "file:x"\nprecision = "int4"', "reward.x.precision must be"),
        ('base = "no"\nadapter = "file:x"\nprecision = "int8"', "No reward is named 'no'"),
        ('base = "x"\nadapter = "file:x"\nprecision = "int8"', "built here itself"),
        (
            'base = "r"\nadapter = "file:x"\nprecision = "int8"\nmode = "a"',
            "unknown key reward.x.mode = 'a'",
        ),
    ],
)
def test_a_reward_recipe_that_cannot_work_is_refused(tmp_path, row, message):
    with pytest.raises(RegistryError, match=message):
        load_files([write(tmp_path / "m.toml", f"{RECIPES}\n[reward.x]\n{row}")])
