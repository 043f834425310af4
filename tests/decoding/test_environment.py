"""What native libraries need in the environment is there while they start, and not afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alignpro_lite.decoding.environment import native_settings
from alignpro_lite.decoding.exhaustion import exhausted
from tests.support import TINY_BUNDLE, TINY_TARGET

NAMES = ("ORT_DISABLE_TELEMETRY", "CUDA_DEVICE_ORDER", "GOMP_SPINCOUNT")


def test_variables_are_set_inside_the_block_only(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    before = dict(os.environ)
    with native_settings():
        assert [os.environ.get(name) for name in NAMES] == ["1", "FASTEST_FIRST", "3000"]
    assert dict(os.environ) == before


def test_blocks_of_two_threads_overlap(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with native_settings():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with native_settings():
        thread.start()
        inside.wait(10)
    assert os.environ.get("GOMP_SPINCOUNT") == "3000", "the other block has not ended"
    leave.set()
    thread.join()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_loading_and_running_leave_the_environment_as_it_was():
    """Three variables stayed in `os.environ`, and reached whatever the host started later."""
    code = (
        "import os; before = dict(os.environ)\n"
        "from alignpro_lite import AlignedModel, Request\n"
        f"with AlignedModel.load({str(TINY_TARGET)!r}, {str(TINY_BUNDLE)!r}) as model:\n"
        "    model.run('Tell', Request(max_tokens=2))\n"
        "print({name: os.environ.get(name) for name in {*before, *os.environ}\n"
        "       if before.get(name) != os.environ.get(name)})\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout.strip() == "{}", done.stderr


@pytest.mark.parametrize(
    "reason",
    [
        "alloc_tensor_range: failed to allocate CPU buffer of size 4096",
        "error loading model: unable to allocate CUDA0 buffer",
        "llama_model_load: mmap failed: Cannot allocate memory",
        "cudaMalloc failed: out of memory",
        "std::bad_alloc",
        "Failed to allocate memory for requested buffer of size 1048576",
    ],
)
def test_memory_that_ran_out_is_named_as_such(reason):
    """It was reported as a damaged file, with the advice to verify the model."""
    error = exhausted(Path("m.gguf"), reason)
    assert error is not None
    assert "not enough memory" in error.problem
    assert reason in error.problem
    assert "verify" not in error.cure


@pytest.mark.parametrize("reason", ["invalid magic characters", "unknown model architecture: 'x'"])
def test_a_damaged_file_is_not_lack_of_memory(reason):
    assert exhausted(Path("m.gguf"), reason) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_a_model_that_does_not_fit_is_not_called_damaged():
    """llama.cpp's last line only says that loading failed; the one before it says why."""
    code = (
        "import resource\n"
        "from pathlib import Path\n"
        "from alignpro_lite.decoding import llamacpp\n"
        "from alignpro_lite.errors import DeviceError\n"
        "params = llamacpp.llama_cpp().llama_model_default_params()\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used, used))\n"
        "try:\n"
        f"    llamacpp.LlamaModel(Path({str(TINY_TARGET)!r}), params)\n"
        "except DeviceError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "not enough memory" in done.stdout, done.stderr
