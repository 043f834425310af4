"""Converters in a process that has imported torch already: starting anew takes them five seconds.

What they do is the same. That they run isolated is for tests/export/test_converters.py to show.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from alignpro_lite.decoding.child import Ended

_IMPORTED = (
    "gguf",
    "onnx_ir",
    "onnxruntime.quantization.matmul_nbits_quantizer",
    "optimum.exporters.onnx.convert",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2.modeling_qwen2",
)


def run_forked(
    program: str | Path, arguments: Sequence[str], seconds: None, environment: Mapping[str, str]
) -> Ended:
    """Run a converter as `run_child` does, in a fork of a process that holds what it imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    # Some of the environment is read at the import, in the server.
    with patch.dict(os.environ, environment), TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("output", "errors")]
        child = context.Process(target=_run, args=(program, list(arguments), said))
        child.start()
        child.join(seconds)
        output, errors = (file.read_text("utf-8", errors="replace") for file in said)
    return Ended(child.exitcode, output, errors)


def _run(program: str | Path, arguments: Sequence[str], said: Sequence[Path]) -> None:
    for descriptor, file in enumerate(said, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.argv[1:] = arguments
    if isinstance(program, Path):
        sys.path.insert(0, str(program.parent))
        runpy.run_path(str(program), run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
