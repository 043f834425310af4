"""Prompter bundles made to fail: the tiny one with a part replaced, and digests that are right."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import TINY_BUNDLE


def altered(
    folder: Path, change: Callable[[dict[str, Any]], object], file: str = "tokenizer.json"
) -> Path:
    """The tiny bundle with a JSON file changed; the digests are right."""
    bundle = shutil.copytree(TINY_BUNDLE, folder / "bundle")
    table = json.loads((bundle / file).read_text("utf-8"))
    change(table)
    (bundle / file).write_text(json.dumps(table), "utf-8")
    sign(bundle)
    return bundle


def sign(bundle: Path) -> None:
    """Bring the digests of a bundle up to date."""
    table = json.loads((bundle / "bundle.json").read_text("utf-8"))
    for listed in table["files"]:
        table["files"][listed] = hashlib.sha256((bundle / listed).read_bytes()).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(table), "utf-8")


def looping(folder: Path) -> Path:
    """A bundle with an endless loop between the input of its graph and the nodes."""
    onnx = pytest.importorskip("onnx")
    bundle = shutil.copytree(TINY_BUNDLE, folder / "bundle")
    file = bundle / "model.onnx"
    model = onnx.load(file, load_external_data=False)
    helper, types = onnx.helper, onnx.TensorProto
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["ids"], ["same"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("number", types.INT64, []),
            helper.make_tensor_value_info("go", types.BOOL, []),
            helper.make_tensor_value_info("ids", types.INT64, None),
        ],
        [
            helper.make_tensor_value_info("go_on", types.BOOL, []),
            helper.make_tensor_value_info("same", types.INT64, None),
        ],
    )
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == "input_ids":
                node.input[place] = "looped"
    yes = helper.make_tensor("yes", types.BOOL, [], [True])
    model.graph.node.insert(
        0, helper.make_node("Loop", ["", "always", "input_ids"], ["looped"], body=body)
    )
    model.graph.node.insert(0, helper.make_node("Constant", [], ["always"], value=yes))
    onnx.save(model, file)
    sign(bundle)
    return bundle
