"""`doctor`: what it says of GPUs and of the plan."""

from __future__ import annotations

import json

import pytest

from alignpro_lite import loading
from alignpro_lite.cli import exit_code_of
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


def test_the_plan_names_the_context_of_one_conversation_and_of_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of(["doctor", *MODELS, "--device", "cpu", "--ctx", "512"]) == 0
    expected = "context of 512 tokens for a conversation, 512 for all that run together"
    assert expected in capsys.readouterr().out


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_vanishes_is_a_broken_target_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code_of(["doctor", *MODELS]) == 1
    report = capsys.readouterr().out
    gpu = "Vulkan0 (AMD Radeon RX 7600, 7.5 GB free)"
    assert f"llama.cpp's backends and GPUs: Vulkan, CPU; {gpu}" in report
    assert "target on Vulkan0, " in report
    assert f"The target runs on {gpu}." in report
    assert "The target was to run on Vulkan0, but llama.cpp finds only CPU" in report


@pytest.mark.usefixtures("gpu")
def test_the_report_for_machines_has_the_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    exit_code_of(["doctor", *MODELS, "--json"])
    plan = json.loads(capsys.readouterr().out)["plan"]
    assert plan["gpu"]["name"] == "Vulkan0"
    assert plan["prompter_gpu"] is None
