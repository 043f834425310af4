"""Files that a graph takes its weights from, wherever in it they are named."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignpro_lite.decoding.onnx_data import require_listed
from alignpro_lite.errors import BundleError
from tests.support import TINY_BUNDLE

onnx = pytest.importorskip("onnx")
FLOAT = onnx.TensorProto.FLOAT
ELSEWHERE = "../secret.bin"


def outside(name=ELSEWHERE):
    """A tensor whose values are in another file."""
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=name)
    return tensor


def graph(nodes=(), tensors=(), sparse=()):
    value = onnx.helper.make_tensor_value_info("x", FLOAT, [2])
    return onnx.helper.make_graph(
        list(nodes), "g", [value], [value], list(tensors), sparse_initializer=list(sparse)
    )


def constant(**attributes):
    node = onnx.NodeProto(op_type="Constant", output=["y"])
    for name, value in attributes.items():
        attribute = node.attribute.add(name=name)
        field = getattr(attribute, name)
        (field.extend if name.endswith("s") else field.CopyFrom)(value)
    return node


def sparse(values, indices):
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[2])


PLACES = {
    "weights": lambda: graph(tensors=[outside()]),
    "second of two": lambda: graph(tensors=[outside("model.onnx.data"), outside()]),
    "constant": lambda: graph([constant(t=outside())]),
    "constants": lambda: graph([constant(tensors=[outside()])]),
    "body of a loop": lambda: graph([constant(g=graph(tensors=[outside()]))]),
    "branch in a branch": lambda: graph(
        [constant(graphs=[graph([constant(g=graph([constant(t=outside())]))])])]
    ),
    "sparse weights": lambda: graph(sparse=[sparse(outside(), onnx.TensorProto())]),
    "sparse places": lambda: graph(sparse=[sparse(onnx.TensorProto(), outside())]),
    "sparse constant": lambda: graph(
        [constant(sparse_tensor=sparse(outside(), onnx.TensorProto()))]
    ),
}


def written(folder, model):
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("place", PLACES)
def test_a_file_without_a_digest_is_refused_wherever_it_is_named(tmp_path, place):
    """Its content was never compared with anything, and it may lie anywhere."""
    file = written(tmp_path, onnx.helper.make_model(PLACES[place]()))
    with pytest.raises(BundleError, match=r"\.\./secret\.bin"):
        require_listed(file, ["model.onnx", "model.onnx.data"], "Make it again.")
    require_listed(file, ["model.onnx.data", ELSEWHERE], "Make it again.")


def test_functions_and_training_are_looked_into(tmp_path):
    model = onnx.helper.make_model(graph())
    model.functions.add(name="f").node.append(constant(t=outside()))
    with pytest.raises(BundleError, match="secret"):
        require_listed(written(tmp_path, model), [], "Make it again.")
    model = onnx.helper.make_model(graph())
    model.training_info.add().algorithm.CopyFrom(graph(tensors=[outside()]))
    with pytest.raises(BundleError, match="secret"):
        require_listed(written(tmp_path, model), [], "Make it again.")


def test_the_order_of_key_and_value_does_not_matter(tmp_path):
    file = written(tmp_path, onnx.helper.make_model(graph(tensors=[outside()])))
    key, value = b"\x0a\x08location", b"\x12\x0d" + ELSEWHERE.encode()
    whole = file.read_bytes()
    assert key + value in whole
    file.write_bytes(whole.replace(key + value, value + key))
    with pytest.raises(BundleError, match="secret"):
        require_listed(file, [], "Make it again.")


def test_an_honest_bundle_passes():
    require_listed(TINY_BUNDLE / "model.onnx", ["model.onnx.data"], "Make it again.")
    with pytest.raises(BundleError, match=r"model\.onnx\.data"):
        require_listed(TINY_BUNDLE / "model.onnx", ["model.onnx"], "Make it again.")


@settings(deadline=None)
@given(raw=st.binary(max_size=60))
def test_what_is_no_graph_is_one_error(tmp_path_factory, raw):
    file = tmp_path_factory.getbasetemp() / "any.onnx"
    file.write_bytes(raw)
    with contextlib.suppress(BundleError):
        require_listed(file, [], "Make it again.")
