"""The floats of GGUF files, compared with those of llama.cpp's own package."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.header import TENSOR_TYPES
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.gguf.weights import GgufWeights
from tests.support.gguf_writer import TensorSpec, header

TYPES = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


def file_of(path, kind, data):
    """A file with one tensor, whose bytes are given."""
    block = next(block for name, block, _ in TENSOR_TYPES.values() if name == kind)
    spec = TensorSpec("w", (4 * block, 6), kind)
    assert len(data) == spec.n_bytes
    path.write_bytes(header({"general.architecture": "llama"}, [spec]) + data)
    return GgufWeights(read_header(path))


def random_bytes(kind):
    """Any bytes are weights, but those of floats that are no numbers."""
    random = np.random.default_rng(len(kind))
    block, n_bytes = next((b, n) for name, b, n in TENSOR_TYPES.values() if name == kind)
    if block == 1:
        floats = random.standard_normal(24).astype(np.float32)
        return gguf.quants.quantize(floats, gguf.GGMLQuantizationType[kind]).tobytes()
    data = random.integers(0, 256, (24, n_bytes), dtype=np.uint8)
    scales = (0, 2) if kind.startswith(("Q4_1", "Q5_1", "Q4_K", "Q5_K")) else (0,)
    for place in (208,) if kind == "Q6_K" else scales:
        halves = random.standard_normal(24).astype(np.float16)
        data[:, place : place + 2] = halves.view(np.uint8).reshape(24, 2)
    return data.tobytes()


@pytest.mark.parametrize("kind", TYPES)
def test_weights_equal_those_of_llama_cpps_own_package(tmp_path, kind):
    data = random_bytes(kind)
    weights = file_of(tmp_path / "w.gguf", kind, data).read("w")
    raw = np.frombuffer(data, np.uint8).reshape(6, -1)
    if kind in ("F32", "F16"):
        raw = raw.view(np.float32 if kind == "F32" else np.float16)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[kind])
    assert weights.dtype == np.float32
    assert np.isfinite(expected).all()
    assert weights.tobytes() == expected.astype(np.float32).tobytes()


def test_what_cannot_be_read_is_named(tmp_path):
    weights = file_of(tmp_path / "w.gguf", "Q2_K", bytes(24 * 84))
    with pytest.raises(ModelFileError, match="of type Q2_K, expected one of F32, F16"):
        weights.read("w")
    with pytest.raises(ModelFileError, match="expected a tensor v, found none"):
        weights.read("v")


def test_rows_are_read_alone(tmp_path):
    weights = file_of(tmp_path / "w.gguf", "Q4_K", random_bytes("Q4_K"))
    whole = weights.read("w")
    assert weights.row_count("w") == 6
    np.testing.assert_array_equal(weights.read("w", 2, 5), whole[2:5])
