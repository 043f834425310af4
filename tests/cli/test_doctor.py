"""`doctor`: what it says of GPUs and of the plan."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from alignpro_lite import loading
from alignpro_lite.cli import main
from alignpro_lite.decoding import backends
from alignpro_lite.hardware.device import Accelerator, LlamaDevices
from tests.support import TINY_BUNDLE, TINY_TARGET

GIB = 1 << 30
MODELS = ["--target", str(TINY_TARGET), "--prompter", str(TINY_BUNDLE)]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A llama.cpp that finds a GPU, which is gone when the model is loaded."""
    card = Accelerator("Vulkan0", "AMD Radeon RX 7600", 8 * GIB, 7 * GIB)
    found = LlamaDevices(("Vulkan", "CPU"), (card,))
    for module in (loading, backends):
        monkeypatch.setattr(module, "find_llama_devices", lambda: found)


def test_the_plan_names_the_context_of_one_conversation_and_of_all() -> None:
    done = CliRunner().invoke(main, ["doctor", *MODELS, "--device", "cpu", "--ctx", "512"])
    assert "context of 512 tokens for a conversation, 512 for all that run together" in done.output


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_vanishes_is_a_broken_target_and_no_traceback() -> None:
    done = CliRunner().invoke(main, ["doctor", *MODELS])
    assert done.exit_code == 1
    gpu = "Vulkan0 (AMD Radeon RX 7600, 7.5 GB free)"
    assert f"llama.cpp's backends and GPUs: Vulkan, CPU; {gpu}" in done.output
    assert "target on Vulkan0, " in done.output
    assert f"The target runs on {gpu}." in done.output
    assert "The target was to run on Vulkan0, but llama.cpp finds only CPU" in done.output


@pytest.mark.usefixtures("gpu")
def test_the_report_for_machines_has_the_gpu() -> None:
    done = CliRunner().invoke(main, ["doctor", *MODELS, "--json"])
    plan = json.JSONDecoder().raw_decode(done.output)[0]["plan"]
    assert plan["gpu"]["name"] == "Vulkan0"
    assert plan["prompter_gpu"] is None
