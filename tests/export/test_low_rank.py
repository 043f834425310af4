"""What an adapter changed, as factors of its own rank, and that quantising keeps it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from alignpro_lite.export.decoder import export_decoder
from alignpro_lite.export.low_rank import factorise
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from tests.support.tiny_models import configurations, write_adapter, write_model

pytestmark = pytest.mark.usefixtures("forked_converters")


@given(st.integers(64, 160), st.integers(64, 160), st.integers(1, 20), st.integers(0, 99))
def test_a_matrix_of_low_rank_comes_back_from_its_factors(rows, columns, rank, seed):
    random = np.random.default_rng(seed)
    left = random.normal(size=(rows, rank)).astype(np.float32)
    change = left @ random.normal(size=(rank, columns)).astype(np.float32)
    found = factorise(change)
    assert found is not None
    assert found[0].shape == (rows, rank)
    assert found[1].shape == (rank, columns)
    assert np.linalg.norm(found[0] @ found[1] - change) <= 2e-3 * np.linalg.norm(change)


def test_no_change_and_a_change_of_full_rank_have_no_factors():
    assert factorise(np.zeros((96, 96), np.float32)) is None
    assert factorise(np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32)) is None


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("base") / "model", configurations()["llama"])


def faint(folder, base):
    """An adapter whose update is far smaller than a step of the 4-bit grid."""
    adapter = write_adapter(folder, base)
    file = adapter / "adapter_model.safetensors"
    save_file({name: value * np.float32(0.1) for name, value in load_file(file).items()}, file)
    return adapter


def constants(folder):
    """The constants of the graph in a folder, by name."""
    graph = onnx.load(folder / "model.onnx").graph
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_an_adapter_smaller_than_the_grid_survives_quantising(base, tmp_path, precision):
    """Regression: merged into a base on the grid, the default adapter was rounded away."""
    adapter = faint(tmp_path / "adapter", base)
    found = []
    for chosen in (None, adapter):
        out = tmp_path / f"out-{chosen is None}"
        out.mkdir()
        export_decoder(base, chosen, precision, "cpu", out, allow_mismatch=True)
        found.append(constants(out))
    plain, tuned = found
    assert all(np.array_equal(plain[name], tuned[name]) for name in plain)
    kept = [
        float(np.linalg.norm(tuned[name] @ tuned[name.replace("/left", "/right")]))
        for name in tuned
        if name.endswith("/left")
    ]
    before, after = (
        {name: value.numpy() for name, value in model.state_dict().items() if "_proj" in name}
        for model in (
            load_torch_model(base).model,
            merge_adapter(load_torch_model(base), adapter).model,
        )
    )
    wanted = sum(float(np.linalg.norm(after[name] - before[name]) ** 2) for name in before)
    assert sum(norm**2 for norm in kept) == pytest.approx(wanted, rel=1e-3)
