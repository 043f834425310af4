"""The bundles that come with the package: assembled, they are what the export with torch writes."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from msgspec import structs

from alignpro_lite.assembly.graphs import read_manifest
from alignpro_lite.assembly.shipped import SHIPPED_GRAPHS, bundle_path, is_at_hand
from alignpro_lite.export import decoder
from alignpro_lite.export.bundle import BundleRequest, export_bundle
from alignpro_lite.prompter.bundle import Parity
from alignpro_lite.registry import Cache, ModelStore
from alignpro_lite.registry.digests import digests_of

NAMES = sorted(folder.name for folder in SHIPPED_GRAPHS.glob("*"))

WITHOUT_TORCH = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnx_ir", "transformers", "peft", "gguf"):
            raise ImportError(name)
sys.meta_path.insert(0, Refusing())
from alignpro_lite.__main__ import start
start()
"""


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_graph_is_small_and_has_its_row(name):
    registry = ModelStore.open().registry
    entry = registry.find("bundle", name)
    manifest = read_manifest(SHIPPED_GRAPHS / name)
    assert manifest.source == registry.downloadable(entry).files[0].sha256
    assert manifest.graph.precision == entry.recipe.precision
    assert not manifest.parity.mismatch_allowed
    files = list((SHIPPED_GRAPHS / name).iterdir())
    assert sum(file.stat().st_size for file in files) < 1_000_000


AGREED = Parity(1, 1.0, 0.95, 1.0, 0.0, 1.0, mismatch_allowed=False)


@contextmanager
def parity_as_when_it_was_made(assembled, folder):
    """Comparing takes most of the time of an export, and was done when the graph was made.

    So of the ways to write it the one passes that passed then: what is written has its size.
    """

    def compare(*compared):
        (written,) = (file for file in folder.rglob("model.onnx.data") if ".work-" not in str(file))
        is_other = written.stat().st_size != (assembled / written.name).stat().st_size
        return structs.replace(AGREED, mismatch_allowed=is_other)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(decoder, "reference_of", lambda source: None)
        monkeypatch.setattr(decoder, "compare_gguf", lambda *compared: AGREED)
        monkeypatch.setattr(decoder, "compare_logits", compare)
        yield


@pytest.mark.real
@pytest.mark.usefixtures("forked_converters")
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_bundle_equals_the_export_to_the_byte(name, tmp_path):
    store = ModelStore.open()
    entry = store.registry.find("bundle", name)
    if not is_at_hand(store, entry):
        pytest.skip(f"the base of {name} is not pulled")
    recipe, base = entry.recipe, store.registry.downloadable(entry)
    request = BundleRequest(
        source=store.cache.installed_path(base),
        base_model=recipe.prompter,
        adapter=recipe.adapter,
        mode=recipe.mode,
        precision=recipe.precision,
        device="cpu",
        allow_mismatch=False,
    )
    assembled = bundle_path(store, name)
    with parity_as_when_it_was_made(assembled, tmp_path):
        made = export_bundle(request, tmp_path / "bundle")
    files = digests_of(assembled)
    # All but the parity, see above.
    wanted = digests_of(made.path) | {"bundle.json": files["bundle.json"]}
    assert files == wanted


@pytest.mark.real
def test_the_small_pair_answers_without_torch(tmp_path):
    """Torch had to be installed for a graph that is the same on every machine."""
    store, cache = ModelStore.open(), Cache(tmp_path)
    base = store.registry.find("target", "smollm2-135m-instruct")
    (file,) = base.files
    place = cache.file_path(base, file)
    place.parent.mkdir(parents=True)
    place.symlink_to(store.cache.file_path(base, file))
    command = ["run", "--models", "small", "--max-tokens", "20", "--seed", "1", "Name a river."]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *command],
        capture_output=True,
        text=True,
        env=os.environ | {"ALIGNPRO_LITE_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 10
    assert "assembling the prompter" in done.stderr
    (bundle,) = (tmp_path / "bundles").iterdir()
    assert bundle.name.startswith("small-")
