"""What is installed, what it can really use, and whether each engine works with its model."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from alignpro_lite.decoding.probe import ProbedModel, probe_model
from alignpro_lite.errors import AlignProError
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.loading import plan_models, plan_prompter, probed_prompter
from alignpro_lite.registry import ModelStore

EngineName = Literal["target", "prompter"]
_PACKAGES = (
    "alignpro-lite",
    "llama-cpp-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "tokenizers",
    "torch",
)


@dataclass(frozen=True)
class Probe:
    """How one engine did.

    Attributes:
        engine: Which one.
        works: Whether it loaded its model and decoded hard texts.
        device: What it ran on, None if it did not.
        seconds: From the start of its process to the end.
        trouble: What went wrong and the cure; empty if it works.
    """

    engine: EngineName
    works: bool
    device: str | None
    seconds: float
    trouble: str


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that matter; None where not installed."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def free_space(folder: Path) -> int:
    """Free bytes on the disk that a folder is or will be on."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder; 0 if it does not exist."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def probe(engine: EngineName, model: str, devices: DeviceRequest, store: ModelStore) -> Probe:
    """Let an engine try its model, found by name, in a process of its own."""
    try:
        probed = _probed(engine, model, devices, store)
        outcome = probe_model(probed)
    except AlignProError as error:
        return Probe(engine, False, None, 0.0, str(error))
    if outcome.error is not None:
        return Probe(engine, False, None, outcome.seconds, str(outcome.error))
    return Probe(engine, True, probed.device, outcome.seconds, "")


def _probed(
    engine: EngineName, model: str, devices: DeviceRequest, store: ModelStore
) -> ProbedModel:
    if engine == "target":
        return plan_models(model, None, store, devices).probed_target
    return probed_prompter(*plan_prompter(model, store, devices.device))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
