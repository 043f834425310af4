"""What is installed, what it can really use, and whether each engine decodes.

Engines are tried in a process of their own, so that a native crash becomes a
message with a cure. `python -m alignpro_lite.doctor` is that process.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from alignpro_lite.errors import AlignProError, DeviceError
from alignpro_lite.hardware.device import DeviceRequest

EngineName = Literal["target", "prompter"]
PROBE_SECONDS = 300.0
_PACKAGES = (
    "alignpro-lite",
    "llama-cpp-python",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "tokenizers",
    "torch",
)
_CRASH_CURES: dict[EngineName, str] = {
    "target": (
        'Rebuild it portably: `CMAKE_ARGS="-DGGML_NATIVE=OFF" pip install --force-reinstall '
        "--no-cache-dir --no-binary llama-cpp-python llama-cpp-python`."
    ),
    "prompter": 'Reinstall it: `pip install --force-reinstall "alignpro-lite[cpu]"`.',
}


@dataclass(frozen=True)
class Probe:
    """How one engine did.

    Attributes:
        engine: Which one.
        works: Whether it loaded its model and decoded a token.
        crashed: Whether its process died instead of answering.
        device: What it really ran on, None if it did not.
        seconds: From process start to the first token.
        trouble: What went wrong and the cure; empty if it works.
    """

    engine: EngineName
    works: bool
    crashed: bool
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


def probe(engine: EngineName, model: str, devices: DeviceRequest, cache: Path | None) -> Probe:
    """Load an engine's model by name and decode one token, in a process of its own."""
    started = time.monotonic()
    question = json.dumps([engine, model, asdict(devices), str(cache) if cache else None])
    try:
        child = subprocess.run(
            [sys.executable, "-m", "alignpro_lite.doctor", question],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        trouble = f"It did not answer in {PROBE_SECONDS:.0f} s. {_CRASH_CURES[engine]}"
        return Probe(engine, False, True, None, PROBE_SECONDS, trouble)
    seconds = time.monotonic() - started
    if child.returncode != 0:
        return Probe(engine, False, True, None, seconds, _describe_crash(engine, child))
    reply = json.loads(child.stdout.splitlines()[-1])
    works = not reply["trouble"]
    return Probe(engine, works, False, reply["device"], seconds, reply["trouble"])


def require_working_target(target: str, devices: DeviceRequest, cache: Path | None) -> None:
    """Probe a target the first time this engine loads it, so that a crash gets an explanation.

    A native crash cannot be caught in its own process. What passed once is remembered in the
    cache, by engine build and file.

    Raises:
        DeviceError: The engine crashes; the error says how to fix it.
        AlignProError: The target cannot be found.
    """
    from alignpro_lite.registry import ModelStore

    store = ModelStore.open(cache)
    file = store.path("target", target).resolve()
    seen = [str(file), file.stat().st_size, file.stat().st_mtime_ns, *_llama_build()]
    name = hashlib.sha256(repr([*seen, devices]).encode()).hexdigest()[:16]
    if store.cache.remembers(name):
        return
    found = probe("target", target, devices, cache)
    if found.crashed:
        raise DeviceError(found.trouble, "Run `alignpro-lite doctor` for details.")
    if not found.works:
        return  # loading it in this process raises the error
    store.cache.remember(name)


def _llama_build() -> tuple[str, int]:
    """What identifies the installed build of llama.cpp, without loading it."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        return ("missing", 0)
    return (spec.origin, Path(spec.origin).stat().st_mtime_ns)


def _describe_crash(engine: EngineName, child: subprocess.CompletedProcess[str]) -> str:
    name = "llama.cpp" if engine == "target" else "onnxruntime"
    if child.returncode < 0:
        how = f"crashed with {signal.Signals(-child.returncode).name}"
    else:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        how = f"ended with exit code {child.returncode} ({last})"
    return f"{name} {how} at its first token. {_CRASH_CURES[engine]}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _answer_probe(question: str) -> dict[str, str | None]:
    """In the child process: decode one token and report the device, or what went wrong."""
    engine, model, devices, cache = json.loads(question)
    try:
        device = _decode_one(engine, model, DeviceRequest(**devices), cache and Path(cache))
    except AlignProError as error:
        return {"device": None, "trouble": str(error)}
    return {"device": device, "trouble": ""}


def _decode_one(engine: EngineName, name: str, devices: DeviceRequest, cache: Path | None) -> str:
    from alignpro_lite.aligned import AlignedModel
    from alignpro_lite.decoding.sampling import Sampling
    from alignpro_lite.loading import load_prompter
    from alignpro_lite.registry import ModelStore
    from alignpro_lite.rewriting.request import Request

    if engine == "prompter":
        store = ModelStore.open(cache)
        with load_prompter(name, store, device=devices.device) as loaded:
            loaded.score("Hello", [loaded.encode("Hello")])
            return loaded.device
    with AlignedModel.load(name, None, devices=devices, cache=cache) as model:
        answer = model.run("Hello", Request(max_tokens=1, sampling=Sampling(temperature=0)))
        if answer.answer_tokens != 1:
            raise DeviceError("The target decoded no token.", _CRASH_CURES["target"])
        return model.plan.device


if __name__ == "__main__":
    print(json.dumps(_answer_probe(sys.argv[1])))
