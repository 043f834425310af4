"""Bundles assembled without torch, compared with what the export with torch writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from msgspec import structs

from alignpro_lite.assembly import shipped
from alignpro_lite.assembly.factors import Factors, fused, read_factors
from alignpro_lite.assembly.graphs import MANIFEST, read_manifest
from alignpro_lite.assembly.shipped import bundle_path
from alignpro_lite.errors import BundleError, RegistryError
from alignpro_lite.eval.config import EvalConfig, PrompterSystemSection
from alignpro_lite.eval.inputs import models_used
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.export.target import export_target
from alignpro_lite.export.weightless import keep_graph
from alignpro_lite.prompter.bundle import PROMPTER_BUNDLE
from alignpro_lite.registry import Cache, ModelStore
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.registry.models_toml import load_files
from alignpro_lite.registry.storage import sha256_of
from tests.support.reference_adapters import write_reference, write_stacked
from tests.support.tiny_models import configurations, write_adapter, write_model

pytestmark = pytest.mark.usefixtures("forked_converters")

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def models_toml(folder, gguf, adapter):
    """A row as those of the package, whose file is here."""
    file = folder / "models.toml"
    digest = sha256_of(gguf, "")
    trained = f'adapter = "file:{adapter}"' if adapter else ""
    file.write_text(
        f'[prompter.base]\nsource = "file:{gguf}"\nsha256 = "{digest}"\n'
        f'[bundle.tiny]\nprompter = "base"\nmode = "augment"\nprecision = "int4"\n{trained}\n'
    )
    return file


@pytest.fixture(scope="module", params=["llama", "qwen2", "reference", "stacked"])
def made(request, tmp_path_factory):
    """A bundle by the export with torch, its graph without weights, and a store for its parts.

    Qwen's is the base alone, Llama's has an adapter: trained by a reward, by examples, or both.
    """
    folder = tmp_path_factory.mktemp(request.param)
    architecture = "qwen2" if request.param == "qwen2" else "llama"
    source = write_model(folder / "model", configurations()[architecture])
    export_target(source, folder / "base.gguf", "F32")
    adapter = None
    if request.param == "llama":
        adapter = write_adapter(folder / "adapter", source, modules=ALL)
    if request.param in ("reference", "stacked"):
        adapter = write_reference(folder / "reference", source, ALL)
    if request.param == "stacked":
        adapter = write_stacked(folder / "adapter", source, folder / "reference", ALL)
    wanted = BundleRequest(
        folder / "base.gguf", "base", adapter, "augment", "int4", "cpu", allow_mismatch=True
    )
    bundle = export_bundle(wanted, folder / "bundle")
    keep_graph(bundle, folder / "base.gguf", adapter, folder / "graphs" / "tiny")
    registry = load_files([models_toml(folder, folder / "base.gguf", adapter)])
    return bundle, folder / "graphs", registry


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    _, graphs, registry = made
    monkeypatch.setattr(shipped, "SHIPPED_GRAPHS", graphs)
    return ModelStore(registry, Cache(tmp_path / "cache"))


def test_an_assembled_bundle_equals_the_export_to_the_byte(made, store):
    bundle, _, _ = made
    seen = []
    folder = bundle_path(store, "tiny", seen.append)
    assert digests_of(folder) == digests_of(bundle.path)
    assert seen[-1].label == "assembling the prompter"
    assert folder.parent == store.cache.root / "bundles"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    count = len(seen)
    assert bundle_path(store, "tiny", seen.append) == folder
    assert len(seen) == count


def test_a_bundle_is_assembled_under_the_name_that_the_list_shows(store):
    """`--prompter bundle/tiny` said that it is not installed, and to install torch."""
    assert bundle_path(store, "bundle/tiny") == bundle_path(store, "tiny")


def test_a_bundle_of_another_version_is_assembled_again(store):
    """Whoever upgraded had to install torch to make the default bundle again."""
    folder = bundle_path(store, "tiny")
    sidecar = json.loads((folder / PROMPTER_BUNDLE.name).read_text())
    (folder / PROMPTER_BUNDLE.name).write_text(json.dumps(sidecar | {"format": 1}))
    assert bundle_path(store, "tiny") == folder
    assert PROMPTER_BUNDLE.open(folder).format == PROMPTER_BUNDLE.version


@pytest.mark.parametrize("there", ["link", "dangling link", "file"])
def test_what_stands_in_the_place_of_a_bundle_is_replaced(store, tmp_path, there):
    """A folder moved to another disk and linked could neither be replaced nor removed."""
    entry = store.registry.find("bundle", "tiny")
    place, elsewhere = store.cache.path(entry), tmp_path / "elsewhere"
    place.parent.mkdir(parents=True)
    if there == "file":
        place.write_text("")
    else:
        place.symlink_to(elsewhere)
    if there == "link":
        elsewhere.mkdir()
        (elsewhere / "kept").touch()
    assert PROMPTER_BUNDLE.open(bundle_path(store, "tiny"))
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    assert (elsewhere / "kept").exists() == (there == "link")
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    store.cache.remove(entry)
    assert not list(place.parent.iterdir())
    assert (tmp_path / "moved").is_dir()


def test_an_evaluation_lists_the_bundle_that_it_loads(store, tmp_path):
    """It listed what another version had left there, which was replaced when it was loaded."""
    folder = bundle_path(store, "tiny")
    (folder / PROMPTER_BUNDLE.name).write_text('{"format": 1}')
    system = PrompterSystemSection(name="trained", bundle="tiny")
    config = SimpleNamespace(
        target=None,
        judge=(),
        pair_judge=None,
        system=(system,),
        dial=None,
        bound=None,
        headroom=None,
    )
    (used,) = models_used(cast(EvalConfig, config), Places(tmp_path, tmp_path, store))
    assert PROMPTER_BUNDLE.open(folder)
    assert used.size == sum(file.stat().st_size for file in folder.iterdir())


def test_an_interrupted_assembly_leaves_nothing_half(store):
    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundle_path(store, "tiny", stop)
    assert not list((store.cache.root / "bundles").iterdir())
    assert PROMPTER_BUNDLE.open(bundle_path(store, "tiny"))


def test_a_graph_made_from_other_weights_does_not_fit(made, store, tmp_path, monkeypatch):
    _, graphs, _ = made
    other = tmp_path / "graphs" / "other"
    other.mkdir(parents=True)
    manifest = json.loads((graphs / "tiny" / MANIFEST).read_text())
    (other / MANIFEST).write_text(json.dumps(manifest | {"source": "0" * 64}))
    monkeypatch.setattr(shipped, "SHIPPED_GRAPHS", other.parent)
    with pytest.raises(RegistryError, match="models pull bundle/tiny"):
        bundle_path(store, "tiny")


def test_what_is_not_pulled_is_pulled_first(store, made, tmp_path):
    _, _, registry = made
    gone = tmp_path / "models.toml"
    base = registry.find("prompter", "base")
    gone.write_text(
        f'[prompter.base]\nsource = "pypi:b==1#b.gguf"\nsha256 = "{base.files[0].sha256}"\n'
        '[bundle.tiny]\nprompter = "base"\nmode = "augment"\nprecision = "int4"\n'
    )
    if registry.find("bundle", "tiny").recipe.adapter is None:
        with pytest.raises(RegistryError, match="models pull bundle/tiny"):
            bundle_path(ModelStore(load_files([gone]), store.cache), "tiny")


def test_a_folder_named_as_the_base_is_not_taken_for_it(store, tmp_path, monkeypatch):
    """Who stood beside a folder with the prompter's name was told that it is no GGUF file."""
    (tmp_path / "here/base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert PROMPTER_BUNDLE.open(bundle_path(store, "tiny"))


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / MANIFEST).write_text("{}")
    with pytest.raises(BundleError, match="Install alignpro-lite again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"n_bytes": -1}, {"pieces": [{"kind": "vector"}]}], ids=str
)
def test_a_manifest_that_cannot_be_followed_is_refused(made, tmp_path, change):
    """Its format was never looked at, and a negative place ended in the system's own words."""
    written = json.loads((made[1] / "tiny" / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(written | change))
    with pytest.raises(BundleError, match="Install alignpro-lite again"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "settings",
    ["{", "[]", '{"peft_type": "LORA"}', '{"peft_type": "LORA", "lora_alpha": 1, "r": 0}', "{}"],
)
def test_changed_settings_of_an_adapter_are_named(made, store, tmp_path, settings):
    """They ended in a traceback."""
    entry = made[2].find("bundle", "tiny")
    if entry.recipe.adapter is None:
        pytest.skip("it has no adapter")
    changed = shutil.copytree(entry.recipe.adapter, tmp_path / "adapter")
    (changed / "adapter_config.json").write_text(settings)
    row = replace(entry, recipe=structs.replace(entry.recipe, adapter=changed))
    changed_store = replace(
        store,
        registry=replace(
            store.registry,
            entries=(*(entry for entry in store.registry.entries if entry.kind != "bundle"), row),
        ),
    )
    with pytest.raises(BundleError, match="adapter"):
        bundle_path(changed_store, "tiny")
    assert not list((store.cache.root / "bundles").iterdir())


def test_fused_factors_are_those_of_the_weights_side_by_side():
    random = np.random.default_rng(0)
    parts = [
        Factors(random.normal(size=(6, r)).astype("f4"), random.normal(size=(r, n)).astype("f4"))
        for r, n in ((2, 5), (3, 4))
    ]
    whole = fused(parts)
    expected = np.concatenate([part.left @ part.right for part in parts], axis=1)
    np.testing.assert_allclose(whole.left @ whole.right, expected, rtol=1e-5)


def test_adapters_of_other_kinds_have_no_factors(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "use_dora": true}')
    assert read_factors(tmp_path) == {}


def test_assembling_needs_neither_torch_nor_onnx():
    program = (
        "import sys\n"
        "class Refusing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'onnx', 'onnx_ir', 'transformers', 'gguf'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refusing())\n"
        "import alignpro_lite.assembly.shipped, alignpro_lite.loading\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
