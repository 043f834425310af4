"""Which prompter goes with a target, and what is said where it was not made for it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alignpro_lite import DeviceRequest
from alignpro_lite.loading import plan_models
from alignpro_lite.prompter.targets import KnownTarget, TargetClaim
from alignpro_lite.registry import Cache, ModelStore, known_digests
from alignpro_lite.registry.known_digests import digest_of_file
from alignpro_lite.registry.models_toml import load_files
from alignpro_lite.registry.storage import sha256_of
from tests.support import TINY_BUNDLE, TINY_TARGET

DIGEST = sha256_of(TINY_TARGET, "")


def planned(store, target, prompter="default"):
    return plan_models(target, prompter, store, DeviceRequest("cpu"))


def bundle_for_no_target(folder):
    """The tiny bundle, as if it was trained for another target."""
    bundle = shutil.copytree(TINY_BUNDLE, folder / "other-bundle")
    sidecar = json.loads((bundle / "bundle.json").read_text())
    sidecar["targets"]["known"] = [{"name": "another", "sha256": "0" * 64}]
    (bundle / "bundle.json").write_text(json.dumps(sidecar))
    return bundle


@pytest.fixture
def store(tmp_path):
    """Two bundles: the usual one was trained for another target, one for the tiny target."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    card = json.loads((TINY_BUNDLE / "bundle.json").read_text())
    (adapter / "prompter_card.json").write_text(
        json.dumps(
            {
                "base": "tiny",
                "template": card["template"],
                "reference_rank": 0,
                "doubt": 0.1,
                "strength": None,
                "reward": None,
                "sampling": card["sampling"],
                "max_tokens": 4,
                "targets": {"known": [{"name": "tiny", "sha256": DIGEST}], "any_by": None},
                "metrics": {},
            }
        )
    )
    (tmp_path / "models.toml").write_text(
        f"""
[preset.default]
bundle = "usual"
target = "usual"
[bundle.usual]
source = "file:{bundle_for_no_target(tmp_path)}"
[bundle.made]
prompter = "base"
adapter = "file:{adapter}"
mode = "augment"
precision = "int4"
[prompter.base]
source = "file:{TINY_TARGET}"
[target.usual]
source = "file:{TINY_TARGET}"
"""
    )
    return ModelStore(load_files([tmp_path / "models.toml"]), Cache(tmp_path / "cache"))


def test_a_prompter_made_for_another_target_is_not_used_in_silence(store):
    """The default prompter, trained for one model, was put in front of every target."""
    (note,) = [n for n in planned(store, "default").plan.notes if "prompter" in n]
    assert "was trained for another, and usual answers" in note
    assert all(way in note for way in ("--mode off", "--prompter", "train prompter"))


def test_who_names_a_target_gets_the_bundle_that_was_made_for_it(store):
    made = store.cache.path(store.registry.find("bundle", "made"))
    assert planned(store, TINY_TARGET).prompter.bundle.path.name == "other-bundle"
    shutil.copytree(TINY_BUNDLE, made)
    found = planned(store, TINY_TARGET)
    assert found.prompter.bundle.path == made
    assert not [note for note in found.plan.notes if "prompter" in note]
    assert planned(store, "default").prompter.bundle.path.name == "other-bundle"


def test_a_folder_named_as_the_bundle_is_not_taken_for_it(store, tmp_path, monkeypatch):
    """Whoever stood beside a folder `small` was told that it is no bundle, without naming it."""
    made = store.cache.path(store.registry.find("bundle", "made"))
    shutil.copytree(TINY_BUNDLE, made)
    (tmp_path / "here/made").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert planned(store, TINY_TARGET).prompter.bundle.path == made


def test_a_digest_is_remembered_until_the_file_changes(store, tmp_path, monkeypatch):
    """A target of gigabytes must not be hashed at each start."""
    file = Path(shutil.copy(TINY_TARGET, tmp_path / "copy.gguf"))
    assert digest_of_file(store, file) == DIGEST
    with monkeypatch.context() as patch:
        patch.setattr(known_digests, "sha256_of", pytest.fail)
        assert digest_of_file(store, file) == DIGEST
    file.write_bytes(b"other")
    assert digest_of_file(store, file) != DIGEST


def test_a_claim_covers_by_digest_and_an_endpoint_by_name():
    gguf, renamed = KnownTarget("a", "1" * 64), KnownTarget("b", "1" * 64)
    endpoint = KnownTarget("a", None)
    assert TargetClaim((gguf,)).covers(renamed)
    assert not TargetClaim((gguf,)).covers(endpoint)
    assert TargetClaim((endpoint,)).covers(endpoint)
    assert not TargetClaim().covers(gguf)
    assert TargetClaim(any_by="docs/results.md").covers(endpoint)
