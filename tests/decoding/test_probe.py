"""Probes: what a child that tries a model says of it, and which models it keeps out."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from alignpro_lite import AlignedModel, doctor
from alignpro_lite.decoding import probe
from alignpro_lite.decoding.probe import ProbedModel, require_working
from alignpro_lite.errors import (
    AlignProError,
    BundleError,
    ContextOverflowError,
    DeviceError,
    InputError,
    ModelFileError,
)
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.loading import load_prompter, plan_prompter
from alignpro_lite.prompters import probed_bundle
from alignpro_lite.registry import Cache, ModelStore
from alignpro_lite.reward.loading import open_reward, scorer_named
from tests.support import TINY_BUNDLE, TINY_TARGET
from tests.support.hostile_bundles import altered, looping

FAKE = """
import ctypes, json, os, signal, sys, time
kind, path, settings = json.loads(sys.argv[1])
behaviour = BROKEN if "known_good" in path else open(path, encoding="utf-8").read()
with open(LOG, "a") as log:
    print(path, file=log)
if behaviour == "abort":
    print("ggml.c:12: GGML_ASSERT(n > 0) failed", file=sys.stderr)
    os.abort()
elif behaviour == "segfault":
    ctypes.string_at(0)
elif behaviour == "exit 3":
    os._exit(3)
elif behaviour == "loop":
    x = ()
    for _ in range(64): x = (x, x)
    hash(x)
elif behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
elif behaviour == "import":
    import no_such_module
elif behaviour == "value":
    print("a warning", file=sys.stderr)
    raise ValueError("odd é")
elif behaviour.startswith("["):
    print("some noise of a library")
    print(behaviour)
else:
    print("null")
"""
"""A child that does what the text of the model file says."""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """Writes model files for the fake child; `broken` is what it does with a known-good one."""
    log = tmp_path / "log"

    def model(behaviour, kind="target", broken="", name="model"):
        source = FAKE.replace("BROKEN", repr(broken)).replace("LOG", repr(str(log)))
        (tmp_path / "fake_probe.py").write_text(source, encoding="utf-8")
        path = tmp_path / name
        path.write_text(behaviour, encoding="utf-8")
        return ProbedModel(kind, path, "cpu", {"threads": 1})

    log.touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(probe, "_PROGRAM", "fake_probe")
    monkeypatch.setattr(probe, "PROBE_SECONDS", 20.0)
    return model


def refusal(model, cache) -> AlignProError:
    with pytest.raises(AlignProError) as caught:
        require_working(model, cache)
    return caught.value


DEATHS = ["abort", "segfault", "exit 3", "loop"]
KINDS = {"target": ModelFileError, "prompter": BundleError, "reward": BundleError}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("death", DEATHS)
def test_a_file_that_the_engine_dies_of_is_blamed_itself(fake, tmp_path, monkeypatch, death, kind):
    """Every hostile file was answered with "Rebuild it portably"."""
    if death == "loop":
        hurry(monkeypatch, 0.5)
    error = refusal(fake(death, kind), Cache(tmp_path))
    assert type(error) is KINDS[kind]
    assert str(tmp_path / "model") in error.problem
    assert "damaged" in error.cure
    assert "pip install" not in error.cure
    assert ("GGML_ASSERT(n > 0)" in error.problem) == (death == "abort")
    assert ("did not end within 0.5 seconds" in error.problem) == (death == "loop")


@pytest.mark.parametrize(
    ("kind", "cure"), [("target", "Rebuild it portably"), ("prompter", "Reinstall it")]
)
def test_a_build_that_dies_of_a_good_model_too_is_blamed_itself(fake, tmp_path, kind, cure):
    error = refusal(fake("segfault", kind, broken="segfault"), Cache(tmp_path))
    assert type(error) is DeviceError
    assert cure in error.cure


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("import", "no_such_module"), ("value", "ValueError: odd é")],
)
def test_an_error_of_python_is_what_it_was_and_no_crash(fake, tmp_path, behaviour, reason):
    """A file name that was not UTF-8 was reported as a crash of llama.cpp."""
    error = refusal(fake(behaviour, broken="segfault"), Cache(tmp_path))
    assert reason in error.problem
    assert "ebuild" not in error.cure


def test_a_child_that_was_killed_from_outside_ran_out_of_memory(fake, tmp_path):
    error = refusal(fake("killed"), Cache(tmp_path))
    assert type(error) is DeviceError
    assert "memory" in error.problem


@pytest.mark.parametrize("kind", [ModelFileError, BundleError, ContextOverflowError, InputError])
def test_what_the_child_finds_wrong_is_raised_as_it_was(fake, tmp_path, kind):
    told = json.dumps([kind.__name__, "It is odd.", "Mend it."])
    error = refusal(fake(told), Cache(tmp_path))
    assert (type(error), error.problem, error.cure) == (kind, "It is odd.", "Mend it.")
    assert (tmp_path / "log").read_text("utf-8").count("\n") == 1, "no other model is tried"


def tries(cache, model) -> int:
    """How often the fake child is started."""
    log = model.path.with_name("log")
    before = log.read_text("utf-8").count("\n")
    require_working(model, cache)
    return log.read_text("utf-8").count("\n") - before


def test_what_passed_is_not_tried_again_until_a_file_changes(fake, tmp_path):
    cache, model = Cache(tmp_path / "cache"), fake("")
    assert [tries(cache, model) for _ in range(3)] == [1, 0, 0]
    model.path.write_text("\n", encoding="utf-8")
    assert tries(cache, model) == 1
    state = model.path.stat()
    model.path.write_text(" ", encoding="utf-8")
    os.utime(model.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    if os.name != "nt":  # where the time of the last change cannot be set
        assert tries(cache, model) == 1
    model.path.write_text("abort", encoding="utf-8")
    refusal(model, cache)
    refusal(model, cache)


def test_a_cache_that_cannot_be_written_remembers_for_the_process_only(fake, tmp_path):
    (tmp_path / "file").touch()
    model = fake("", name="other")
    assert [tries(Cache(tmp_path / "file"), model) for _ in range(2)] == [1, 0]


def test_another_cpu_or_library_is_another_engine(fake, tmp_path, monkeypatch):
    """A cache that machines share let a build for AVX-512 end the process on a CPU without."""
    cache, model = Cache(tmp_path / "cache"), fake("")
    assert tries(cache, model) == 1
    monkeypatch.setattr(probe, "cpu_flags", lambda: frozenset({"fpu"}))
    assert [tries(cache, model) for _ in range(2)] == [1, 0]
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "libllama.so").touch()
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path / "libs"))
    assert [tries(cache, model) for _ in range(2)] == [1, 0]
    (tmp_path / "libs" / "libllama.so").write_text("another", encoding="utf-8")
    assert tries(cache, model) == 1


@pytest.mark.parametrize("kind", ["target", "prompter"])
def test_a_version_that_was_not_tested_is_named_where_python_fails(
    fake, tmp_path, monkeypatch, kind
):
    """`module 'llama_cpp' has no attribute ...` sent the user to doctor, which said the same."""
    monkeypatch.setattr(probe, "TESTED_VERSION", "0.0.1")
    error = refusal(fake("import", kind), Cache(tmp_path))
    assert type(error) is DeviceError
    assert ("0.0.1 was: install that" in error.cure) == (kind == "target")


def test_every_part_of_a_split_model_counts(fake, tmp_path):
    cache = Cache(tmp_path / "cache")
    parts = [fake("", name=f"big-0000{number}-of-00002.gguf").path for number in (1, 2)]
    fake("", name="other-00001-of-00002.gguf")
    model = ProbedModel("target", parts[0], "cpu", {})
    assert [tries(cache, model) for _ in range(2)] == [1, 0]
    parts[1].write_text("\n", encoding="utf-8")
    (tmp_path / "other-00001-of-00002.gguf").write_text("\n", encoding="utf-8")
    assert [tries(cache, model) for _ in range(2)] == [1, 0]


def test_large_models_have_more_time():
    small = ProbedModel("target", TINY_TARGET, "cpu", {})
    assert probe.PROBE_SECONDS < probe._seconds(small) < probe.PROBE_SECONDS + 1


# The probes of real models.


def hurry(monkeypatch, seconds):
    """Give little time to every model but the known-good ones."""
    monkeypatch.setattr(
        probe, "_seconds", lambda model: 60.0 if "known_good" in str(model.path) else seconds
    )


DEVICES = DeviceRequest("cpu")


def load(target, tmp_path, bundle=None):
    return AlignedModel.load(target, bundle, devices=DEVICES, cache=tmp_path / "cache")


def test_code_beside_a_model_is_not_run(tmp_path, monkeypatch):
    """`run --target` executed a hashlib.py that lay in the folder of the download."""
    for name in ("hashlib", "jinja2", "llama_cpp", "alignpro_lite"):
        text = f"open({str(tmp_path / 'pwned')!r}, 'w')"
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    target = shutil.copy(TINY_TARGET, tmp_path / "model.gguf")
    with AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=DEVICES):
        pass  # this process has imported what it needs
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with load(target, tmp_path, TINY_BUNDLE) as model:
        assert model.rewrite("Hello")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_utf_8_is_a_name_like_any_other(tmp_path):
    """Its probe failed, which was taken for a crash of llama.cpp."""
    target = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.gguf"))
    shutil.copy(TINY_TARGET, target)
    with load(target, tmp_path) as model:
        assert model.run("Hello").answer
    target.write_bytes(b"GGUF")
    with pytest.raises(ModelFileError):
        load(target, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_bundle_in_a_folder_that_is_not_utf_8_is_to_be_renamed(tmp_path):
    bundle = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    shutil.copytree(TINY_BUNDLE, bundle)
    with pytest.raises(BundleError, match="path in UTF-8") as caught:
        load_prompter(bundle, ModelStore.open(tmp_path / "cache"))
    assert "Rename" in caught.value.cure


def damaged(tmp_path, old, new):
    whole = TINY_TARGET.read_bytes()
    assert whole.count(old) == 1
    assert len(old) == len(new)
    path = tmp_path / "damaged.gguf"
    path.write_bytes(whole.replace(old, new))
    return path


EPSILON = b"llama.attention.layer_norm_rms_epsilon\x06\x00\x00\x00"


@pytest.mark.parametrize("value", [b"\x00\x00\x80\xbf", b"\x00\x00\xc0\x7f"], ids=["-1", "NaN"])
def test_a_library_user_gets_an_error_of_a_file_that_ends_processes(tmp_path, value):
    """The library had no probe: llama.cpp's abort ended the program that used it."""
    whole = TINY_TARGET.read_bytes()
    place = whole.index(EPSILON) + len(EPSILON)
    path = damaged(tmp_path, whole[place - 20 : place + 4], whole[place - 20 : place] + value)
    with pytest.raises(ModelFileError):
        load(path, tmp_path)


def replace_with_itself_twice(text):
    rule = {"type": "Replace", "pattern": {"String": text}, "content": text * 2}
    return {"type": "Sequence", "normalizers": [rule] * 60}


@pytest.mark.parametrize(
    "part",
    [
        {"decoder": {"type": "Strip", "content": "e", "start": 0, "stop": 99}},
        {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "xx"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]}},
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": "(a+)+$"},
                "behavior": "Isolated",
                "invert": False,
            }
        },
    ],
    ids=["panic of decoding", "panic of normalising", "zero length", "unknown", "backtracking"],
)
def test_a_tokenizer_that_fails_at_some_text_is_an_error_of_its_file(tmp_path, part):
    """Rust panics are no `Exception`; they and plain exceptions were tracebacks."""
    folder = altered(tmp_path, lambda table: table.update(part))
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        load_prompter(folder, ModelStore.open(tmp_path / "cache"))


@pytest.mark.parametrize("text", ["a", "zebra"])
def test_a_tokenizer_that_never_ends_is_stopped(tmp_path, monkeypatch, text):
    """Sixty doublings of a letter that the prompt holds hang every thread."""
    hurry(monkeypatch, 3.0)
    folder = altered(
        tmp_path, lambda table: table.update(normalizer=replace_with_itself_twice(text))
    )
    begun = time.monotonic()
    with pytest.raises(BundleError, match="did not end within"):
        load_prompter(folder, ModelStore.open(tmp_path / "cache"))
    assert time.monotonic() - begun < 30


def test_padding_and_truncation_of_a_tokenizer_do_not_count(tmp_path):
    """Padding to 10^12 tokens aborted the process, truncation cut the prompt in silence."""

    def change(table):
        table["padding"] = {
            "strategy": {"Fixed": 10**12},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "x",
        }
        table["truncation"] = {
            "direction": "Right",
            "max_length": 1,
            "strategy": "LongestFirst",
            "stride": 0,
        }

    store = ModelStore.open(tmp_path / "cache")
    with (
        load_prompter(altered(tmp_path, change), store) as changed,
        load_prompter(TINY_BUNDLE, store) as whole,
    ):
        assert changed.prompt_tokens("Hello") == whole.prompt_tokens("Hello")


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("head_dim", 10**30, "at most 65536"),
        ("head_dim", 10**9, "at most 65536"),
        ("max_length", 10**30, "at most 2147483647"),
        ("layers", 0, "at least 1"),
        ("head_dim", 17, "expected 16"),
        ("kv_heads", 3, "has kv_heads 2"),
        ("layers", 9, "has layers 2"),
        ("vocab", 400, "has vocab 384"),
    ],
)
def test_sizes_that_the_graph_does_not_have_are_refused(tmp_path, key, value, found):
    folder = altered(tmp_path, lambda table: table["graph"].update({key: value}), "bundle.json")
    with pytest.raises(BundleError, match=found):
        load_prompter(folder, ModelStore.open(tmp_path / "cache"))


def test_a_graph_that_never_ends_is_stopped(tmp_path, monkeypatch):
    """Its endless loop ignored the first Ctrl-C and aborted the process at the second."""
    hurry(monkeypatch, 3.0)
    folder = looping(tmp_path)
    with pytest.raises(BundleError, match="did not end within"):
        load_prompter(folder, ModelStore.open(tmp_path / "cache"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("name", ["bundle.json", "tokenizer.json", "model.onnx"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(tmp_path, name):
    folder = shutil.copytree(TINY_BUNDLE, tmp_path / "bundle")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(BundleError):
        plan_prompter(folder, ModelStore.open(tmp_path / "cache"), "cpu")


def test_a_context_too_small_for_the_hard_texts_is_the_users_choice(tmp_path):
    small = DeviceRequest("cpu", ctx=24)
    with AlignedModel.load(TINY_TARGET, None, devices=small, cache=tmp_path / "cache") as model:
        assert model.target.prompt_tokens([])


def test_the_doors_of_the_library_and_the_commands_are_one(tmp_path, monkeypatch):
    seen = []
    for place in ("loading", "reward.loading"):
        monkeypatch.setattr(
            f"alignpro_lite.{place}.require_working", lambda model, *_: seen.append(model.kind)
        )
    store = ModelStore.open(tmp_path)
    with AlignedModel.load(TINY_TARGET, TINY_BUNDLE, devices=DEVICES, cache=tmp_path):
        assert set(seen) == {"target", "prompter"}
    seen.clear()
    load_prompter(TINY_BUNDLE, store).close()
    assert seen == ["prompter"]
    bundle, settings = plan_prompter(TINY_BUNDLE, store, "cpu")
    assert probed_bundle(bundle, settings).path == TINY_BUNDLE
    with pytest.raises(AlignProError):
        open_reward([scorer_named(tmp_path)], store, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_known_good_models_pass_in_every_role(kind):
    """They decide whether a file or the build is to blame, so they have to work."""
    settings = {"context": 256, "sequences": 2, "n_gpu_layers": 0, "gpu": None, "threads": 1}
    if kind != "target":
        settings = {"threads": 1}
    assert probe._works(probe._known_good(ProbedModel(kind, TINY_TARGET, "cpu", settings)))


def test_doctor_probes_anew_and_says_what_is_wrong(tmp_path):
    store = ModelStore.open(tmp_path)
    good = doctor.probe_prompter(str(TINY_BUNDLE), "default", DEVICES, store)
    assert (good.works, good.device, good.trouble) == (True, "cpu", "")
    (tmp_path / "odd.gguf").write_bytes(b"GGUF")
    bad = doctor.probe_target(str(tmp_path / "odd.gguf"), DEVICES, store)
    assert not bad.works
    assert "odd.gguf" in bad.trouble
