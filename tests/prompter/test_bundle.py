"""The sidecar of a bundle: what is written is read back, and everything else is refused."""

from __future__ import annotations

import copy
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from msgspec.structs import replace

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import BundleError
from alignpro_lite.prompter.bundle import (
    PROMPTER_BUNDLE,
    Graph,
    Parity,
    Provenance,
    Sidecar,
    Tokens,
    open_bundle,
)
from alignpro_lite.prompter.targets import NO_TARGET
from alignpro_lite.prompter.template import AUGMENT, REWRITE
from tests.support import TINY_BUNDLE

FILES = {"model.onnx": b"graph" * 1000, "tokenizer.json": b"{}", "parts/extra.bin": b""}
PARTS = ("graph", "tokens", "template", "sampling", "parity", "provenance")


@pytest.fixture
def bundle(tmp_path):
    """A whole bundle on disk; its files are not real models."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    PROMPTER_BUNDLE.write(tmp_path, sidecar())
    return tmp_path


def sidecar() -> Sidecar:
    return Sidecar(
        targets=NO_TARGET,
        format=PROMPTER_BUNDLE.version,
        graph=Graph("model.onnx", "shared", "cpu", "int4", "float32", 2, 1, 8, 100, 64, None),
        tokens=Tokens("tokenizer.json", 1, (2, 0), "{{ bos_token }}", {"bos_token": "<s>"}),
        template=REWRITE,
        sampling=Sampling(temperature=0.7, top_p=0.9, seed=4),
        max_tokens=48,
        parity=Parity(500, 0.95, 0.9, 1.01, 1.5, 1.0, mismatch_allowed=False),
        provenance=Provenance("tiny", None, 0.1, "length"),
        files={name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()},
        eval_card={"mean": 1.5, "nested": [1, {"λ": "ä"}]},
    )


def changed(bundle, **values) -> None:
    """Write the sidecar with other values; `graph__file` is the file of the graph."""
    raw = json.loads((bundle / PROMPTER_BUNDLE.name).read_text("utf-8"))
    for path, value in values.items():
        *parents, last = path.split("__")
        table = raw
        for parent in parents:
            table = table[parent]
        table[last] = value
    (bundle / PROMPTER_BUNDLE.name).write_text(json.dumps(raw), "utf-8")


def refusal(bundle) -> str:
    """The error of opening it: a BundleError of one line with a cure, never anything else."""
    with pytest.raises(BundleError) as caught:
        open_bundle(bundle)
    assert "\n" not in str(caught.value)
    assert "alignpro-lite export bundle" in caught.value.cure
    return caught.value.problem


def test_what_is_written_is_read_back(bundle):
    opened = open_bundle(bundle)
    assert opened.sidecar == sidecar()
    assert opened.graph_file == bundle / "model.onnx"
    assert opened.tokenizer_file == bundle / "tokenizer.json"
    assert opened.n_bytes == 5002


def test_optional_values_are_read_back(bundle):
    without = replace(
        sidecar(),
        template=AUGMENT,
        tokens=Tokens("tokenizer.json", None, (2,), None, {}),
        provenance=Provenance("tiny", "adapter", None, None),
        eval_card={},
    )
    PROMPTER_BUNDLE.write(bundle, without)
    assert PROMPTER_BUNDLE.read(bundle) == without


def test_a_whole_number_serves_as_a_float(bundle):
    changed(bundle, sampling__temperature=1, parity__required=1)
    assert PROMPTER_BUNDLE.read(bundle).sampling.temperature == 1


def every_key():
    """Every (part, key) of a sidecar; part None is the top level."""
    raw = to_builtins(sidecar())
    top = [(None, key) for key in raw]
    return top + [(part, key) for part in PARTS for key in raw[part]]


@pytest.mark.parametrize(("part", "key"), every_key())
def test_a_missing_key_is_named(bundle, part, key):
    raw = json.loads((bundle / PROMPTER_BUNDLE.name).read_text("utf-8"))
    del (raw[part] if part else raw)[key]
    (bundle / PROMPTER_BUNDLE.name).write_text(json.dumps(raw), "utf-8")
    assert key in refusal(bundle)


@pytest.mark.parametrize("part", [None, *PARTS])
def test_an_unknown_key_is_named(bundle, part):
    changed(bundle, **{f"{part}__surprise" if part else "surprise": 1})
    key = f"{part}.surprise" if part else "surprise"
    assert f"unknown key {key} = 1" in refusal(bundle)


@pytest.mark.parametrize(("part", "key"), every_key())
@given(value=st.sampled_from([None, True, -1.5, "text", [], [None], {}, {"a": None}, float("inf")]))
def test_a_wrong_type_is_refused_or_fits(tmp_path_factory, part, key, value):
    """`files` as a number, a digest as a number and `max_tokens` infinite gave tracebacks."""
    folder = tmp_path_factory.mktemp("sidecar")
    raw = json.loads(json.dumps(to_builtins(sidecar())))
    table = raw[part] if part else raw
    old = copy.deepcopy(table[key])
    table[key] = value
    (folder / PROMPTER_BUNDLE.name).write_text(json.dumps(raw), "utf-8")
    try:
        read = PROMPTER_BUNDLE.read(folder)
    except BundleError:
        return
    found = to_builtins(read)[part][key] if part else to_builtins(read)[key]
    same = found == value or list(found) == value
    assert same, f"{key}: {value!r} was read as {found!r}, not refused; it was {old!r}"


@pytest.mark.parametrize(
    "values",
    [
        {"files": {"model.onnx": 5, "tokenizer.json": "0"}},
        {"files": 5},
        {"files": None},
        {"files": ["ab", "cd"]},
        {"max_tokens": "48"},
        {"max_tokens": 4.5},
        {"max_tokens": float("inf")},
        {"tokens__stop": ["2"]},
        {"tokens__names": {"bos_token": 5}},
        {"template__examples": ["ab"]},
        {"template__examples": [["one"]]},
        {"template__mode": "shout"},
        {"graph__precision": "int3"},
        {"graph__layers": True},
        {"eval_card": []},
    ],
)
def test_values_that_used_to_slip_through_are_refused(bundle, values):
    changed(bundle, **values)
    refusal(bundle)


def test_a_sampling_out_of_range_names_the_file(bundle):
    changed(bundle, sampling__temperature=-1)
    assert PROMPTER_BUNDLE.name in refusal(bundle)
    assert "temperature must be 0 to 100, found -1." in refusal(bundle)


@pytest.mark.parametrize("version", [0, 1, "2", None, True, 2.0, [2]])
def test_another_version_is_refused(bundle, version):
    changed(bundle, format=version)
    assert "format" in refusal(bundle)


def test_a_newer_version_tells_to_upgrade(bundle):
    changed(bundle, format=PROMPTER_BUNDLE.version + 1)
    with pytest.raises(BundleError, match="upgrade alignpro-lite"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"format": 1' + b"0" * 5000 + b"}",
    ],
    ids=["empty", "cut", "not-utf8", "list", "null", "deep", "long-number"],
)
def test_a_sidecar_that_is_no_table_is_refused(bundle, content):
    (bundle / PROMPTER_BUNDLE.name).write_bytes(content)
    refusal(bundle)


def test_a_folder_without_a_sidecar_and_a_file_are_refused(bundle, tmp_path):
    (bundle / PROMPTER_BUNDLE.name).unlink()
    assert f"folder with a {PROMPTER_BUNDLE.name}" in refusal(bundle)
    assert f"folder with a {PROMPTER_BUNDLE.name}" in refusal(bundle / "model.onnx")
    assert f"folder with a {PROMPTER_BUNDLE.name}" in refusal(tmp_path / "nowhere")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    assert f"{bundle / name} of the bundle is missing" in refusal(bundle)


@pytest.mark.parametrize("place", [0, 2499, 4999])
def test_one_flipped_bit_is_found(bundle, place):
    content = bytearray(FILES["model.onnx"])
    content[place] ^= 1
    (bundle / "model.onnx").write_bytes(bytes(content))
    assert "model.onnx was altered" in refusal(bundle)


@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "/etc/passwd", ".."])
def test_no_file_outside_the_bundle_is_named(bundle, name):
    changed(bundle, files={**sidecar().files, name: "0" * 64})
    assert f"outside the bundle: {name}" in refusal(bundle)


@pytest.mark.parametrize("part", ["graph", "tokens"])
@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "other.onnx"])
def test_no_file_is_used_without_its_digest(bundle, part, name):
    """The graph could be any file of the disk, unchecked."""
    (bundle / "other.onnx").write_bytes(b"")
    changed(bundle, **{f"{part}__file": name})
    assert f"no digest of {name}" in refusal(bundle)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("graph", "vocab", -1),
        ("graph", "kv_heads", 0),
        ("tokens", "stop", []),
        ("tokens", "stop", [99999999]),
        ("tokens", "bos", -1),
        ("template", "request", "x"),
    ],
)
def test_values_that_would_reach_native_code_are_in_range(part, key, value, tmp_path):
    """Regression: a token beyond the vocabulary was handed to onnxruntime."""
    raw = json.loads((TINY_BUNDLE / "bundle.json").read_text("utf-8"))
    raw[part][key] = value
    (tmp_path / "bundle.json").write_text(json.dumps(raw), "utf-8")
    with pytest.raises(BundleError):
        PROMPTER_BUNDLE.read(tmp_path)
