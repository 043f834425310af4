"""What is installed, what it can really use, and whether each engine works with its model."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from alignpro_lite.decoding.llamacpp import installed_build
from alignpro_lite.decoding.probe import ProbedModel, probe_model
from alignpro_lite.errors import AlignProError
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.hardware.llama_build import (
    TESTED_VERSION,
    fitting_args,
    install_command,
    unused_sets,
)
from alignpro_lite.loading import plan_models, plan_prompter
from alignpro_lite.prompters import probed_bundle
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.self_prompter import self_name

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


@dataclass(frozen=True)
class LlamaReport:
    """What llama.cpp was compiled for, and what it should be.

    Attributes:
        version: Of llama-cpp-python.
        tested_version: The one that the project is tested with.
        instruction_sets: What llama.cpp was compiled for.
        unused_sets: What else this CPU and the compiler have that llama.cpp would use. Empty where
            a GPU does the work.
        faster_build: The command that compiles it with them; empty if there are none.
    """

    version: str
    tested_version: str
    instruction_sets: tuple[str, ...]
    unused_sets: tuple[str, ...]
    faster_build: str


def llama_report() -> LlamaReport:
    """Look at the installed llama.cpp.

    Raises:
        MissingDependencyError: It is not installed or cannot be used.
    """
    build = installed_build()
    unused = () if build.uses_gpu else unused_sets(set(build.instruction_sets))
    command = install_command(fitting_args()) if unused else ""
    return LlamaReport(build.version, TESTED_VERSION, build.instruction_sets, unused, command)


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


def probe_target(target: str, devices: DeviceRequest, store: ModelStore) -> Probe:
    """Let llama.cpp try the target, found by name, in a process of its own."""
    return _probe("target", lambda: plan_models(target, None, store, devices).probed_target)


def probe_prompter(prompter: str, target: str, devices: DeviceRequest, store: ModelStore) -> Probe:
    """Let the engine of the prompter try it, in a process of its own; a bundle needs no target."""

    def probed() -> ProbedModel:
        if self_name(store.prompter_name(prompter)) is None:
            return probed_bundle(*plan_prompter(prompter, store, devices.device))
        planned = plan_models(target, prompter, store, devices)
        return planned.probed_prompter or planned.probed_target

    return _probe("prompter", probed)


def _probe(engine: EngineName, find: Callable[[], ProbedModel]) -> Probe:
    try:
        probed = find()
        outcome = probe_model(probed)
    except AlignProError as error:
        return Probe(engine, False, None, 0.0, str(error))
    if outcome.error is not None:
        return Probe(engine, False, None, outcome.seconds, str(outcome.error))
    return Probe(engine, True, probed.device, outcome.seconds, "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
