"""Probing a model: trying it in a process of its own before this process loads it.

A native crash cannot be caught, nor a native loop be left: a hostile or damaged file would end or
stop whoever loads it. So every model is first loaded by a child, which makes it do what it may be
asked to do later (`alignpro_lite/probe_child.py`). What passed is remembered in the cache, by the
build of the engine and the files. When the child dies, a known-good model tells a broken build from
a broken file.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alignpro_lite import errors
from alignpro_lite.decoding.bindings import LIBRARY_PATH
from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.child import Ended, how_it_ended, run_child
from alignpro_lite.errors import (
    AlignProError,
    BundleError,
    DeviceError,
    ModelFileError,
    error_named,
)
from alignpro_lite.hardware.llama_build import (
    TESTED_VERSION,
    cpu_flags,
    fitting_args,
    install_command,
    portable_args,
)
from alignpro_lite.registry.cache import Cache
from alignpro_lite.registry.stamps import FileIdentity, Stamps, identity_of

ProbedKind = Literal["target", "adapter", "prompter", "reward"]

PROBE_SECONDS = 60.0
"""For a small model, which takes one or two where nothing else is slow; see `_seconds`."""
_BYTES_A_SECOND = 25e6
"""How fast a model is read and decodes its first tokens, at worst."""
_PROGRAM = "alignpro_lite.probe_child"
_KNOWN_GOOD = Path(errors.__file__).with_name("known_good")
_PYTHON_FAILED = 1
"""The exit code of a Python program that ended with an exception; a crash has another one."""
_KILLED = -9
"""By SIGKILL, which no program does to itself."""
_LONGEST_REASON = 200
_SPLIT = re.compile(r"-\d{5}(-of-\d{5}\.gguf)\Z")


@dataclass(frozen=True)
class ProbedModel:
    """A model to try.

    Attributes:
        kind: What the model is.
        path: A GGUF file, of a model or of an adapter to one; or the folder of a bundle.
        device: Where it runs: `cpu`, or the name of a GPU.
        settings: How it is loaded, as JSON.
    """

    kind: ProbedKind
    path: Path
    device: str
    settings: Mapping[str, Any]

    @property
    def settings_of_target(self) -> Mapping[str, Any]:
        """How the target is loaded: that of an adapter is among its settings, with its path."""
        found: Mapping[str, Any] = self.settings.get("target", self.settings)
        return found


@dataclass(frozen=True)
class ProbeOutcome:
    """How a probe ended.

    Attributes:
        error: What is wrong with the model, None if it works.
        seconds: From the start of the child to its end.
    """

    error: AlignProError | None
    seconds: float


@dataclass(frozen=True)
class _Runtime:
    """A native library that loads models, and what to do when it dies."""

    name: str
    package: str
    error: type[AlignProError]
    file_cure: str
    build_cure: str


_LLAMA_CPP = _Runtime(
    "llama.cpp",
    "llama_cpp",
    ModelFileError,
    "The file is damaged or malicious: compare its sha256 with that of its publisher, or use "
    "another one.",
    f"Rebuild it portably: `{install_command(portable_args())}`.",
)
_ONNXRUNTIME = _Runtime(
    "onnxruntime",
    "onnxruntime",
    BundleError,
    "The bundle is damaged or malicious: make it again with `alignpro-lite export`, or use another "
    "one.",
    'Reinstall it: `pip install --force-reinstall "alignpro-lite[cpu]"`.',
)
_RUNTIMES: dict[ProbedKind, _Runtime] = {
    "target": _LLAMA_CPP,
    "adapter": _LLAMA_CPP,
    "prompter": _ONNXRUNTIME,
    "reward": _ONNXRUNTIME,
}


def require_working(
    model: ProbedModel, cache: Cache, cancellation: Cancellation | None = None
) -> None:
    """Try a model unless this build is known to work with these files.

    Raises:
        CancelledError: It was cancelled.
        ModelFileError, BundleError: The model is damaged, hostile, or not what it should be.
        DeviceError: The engine fails with every model.
        AlignProError: Whatever else loading it raises.
    """
    stamps = Stamps(cache)
    subject = _subject(model)
    if stamps.has(subject):
        return
    if error := probe_model(model, cancellation).error:
        raise error
    stamps.add(subject)


def probe_model(model: ProbedModel, cancellation: Cancellation | None = None) -> ProbeOutcome:
    """Load a model in a child and let it do what it may be asked to do later."""
    started = time.monotonic()
    ended = _run(model, cancellation)
    error = _error_of(ended)
    if error is None and ended.code != 0:
        error = _death(model, ended)
    return ProbeOutcome(error, time.monotonic() - started)


def _run(model: ProbedModel, cancellation: Cancellation | None = None) -> Ended:
    question = json.dumps([model.kind, str(model.path), dict(model.settings)])
    # ggml's own backtrace starts a debugger, and two threads that fail at once wait for each other.
    environment = {"GGML_NO_BACKTRACE": "1", "RUST_BACKTRACE": "0"}
    try:
        return run_child(_PROGRAM, [question], _seconds(model), environment, cancellation)
    except OSError as error:
        raise DeviceError(
            f"Models are tried in a process of their own, which does not start ({error}).",
            "Check how many processes you may start, and that the temporary folder has room.",
        ) from error


def _error_of(ended: Ended) -> AlignProError | None:
    """What the child found wrong with the model by itself."""
    if ended.code != 0:
        return None
    reply = json.loads(ended.output.splitlines()[-1])
    if reply is None:
        return None
    return error_named(*reply)


def _death(model: ProbedModel, ended: Ended) -> AlignProError:
    """Blame the file, unless the engine dies of a good one too."""
    runtime, reason = _RUNTIMES[model.kind], _last_line(ended.errors)
    if ended.code == _PYTHON_FAILED:
        return DeviceError(
            f"Trying {model.path} failed ({reason}).",
            _untested_cure(runtime)
            or "Run `alignpro-lite doctor`, and install what it misses or says is broken.",
        )
    how = f"{_how(model, ended)}{f' ({reason})' if reason else ''}"
    if ended.code == _KILLED:
        return DeviceError(
            f"A probe of {model.path} was killed, as is done where memory runs out.",
            "Close other programs, lower --ctx, or use a smaller model.",
        )
    if _works(_known_good(model)):
        return runtime.error(
            f"A probe of {model.path} {how}, while that of a known-good model passes.",
            runtime.file_cure,
        )
    busy = "Try again while the machine is less busy. " if ended.code is None else ""
    return DeviceError(
        f"{runtime.name} fails with every model: a probe {how}.", busy + runtime.build_cure
    )


def _untested_cure(runtime: _Runtime) -> str:
    """What to do where another llama-cpp-python than the tested one has other functions."""
    distribution = "llama-cpp-python"
    if runtime is not _LLAMA_CPP or importlib.util.find_spec(runtime.package) is None:
        return ""
    version = importlib.metadata.version(distribution)
    if version == TESTED_VERSION:
        return ""
    return (
        f"Version {version} of {distribution} was not tested, {TESTED_VERSION} was: install that, "
        f"`{install_command(fitting_args())}`."
    )


def _works(model: ProbedModel) -> bool:
    ended = _run(model)
    return ended.code == 0 and _error_of(ended) is None


def _known_good(model: ProbedModel) -> ProbedModel:
    if _RUNTIMES[model.kind] is _LLAMA_CPP:
        path = _KNOWN_GOOD / "target.gguf"
        return replace(model, kind="target", path=path, settings=model.settings_of_target)
    settings = {"device": "cpu", "gpu": 0, "sequences": 1, "threads": 1, **model.settings}
    return ProbedModel("prompter", _KNOWN_GOOD / "bundle", model.device, settings)


def _how(model: ProbedModel, ended: Ended) -> str:
    if ended.code is None:
        return f"did not end within {_seconds(model):.3g} seconds"
    return f"crashed with {how_it_ended(ended.code)}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_LONGEST_REASON] if lines else ""


def _seconds(model: ProbedModel) -> float:
    return PROBE_SECONDS + sum(file.stat().st_size for file in _files(model.path)) / _BYTES_A_SECOND


def _subject(model: ProbedModel) -> tuple[object, ...]:
    """What the result of a probe depends on; the length of the context is not part of it."""
    build = _build(_RUNTIMES[model.kind].package)
    ours = importlib.metadata.version("alignpro-lite")
    # A cache may be shared by machines, and what one CPU can do ends the process on another.
    cpu = sorted(cpu_flags())
    return ours, build, cpu, model.kind, model.device, *_identities(model.path)


def _build(package: str) -> list[FileIdentity]:
    """The files that make an engine what it is; a library can be exchanged without its package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return []
    origin = Path(spec.origin)
    folders = [origin.with_name("lib"), *map(Path, filter(None, [os.environ.get(LIBRARY_PATH)]))]
    libraries = sorted(file for folder in folders for file in folder.glob("*") if file.is_file())
    return [identity_of(file) for file in (origin, *libraries)]


def _identities(path: Path) -> list[FileIdentity]:
    return [identity_of(file) for file in _files(path)]


def _files(path: Path) -> list[Path]:
    """The files of a model: those of a folder, or all parts of a split file."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    if split := _SPLIT.search(path.name):
        beginning = path.name[: split.start()]
        return sorted(
            file
            for file in path.parent.iterdir()
            if file.name.startswith(beginning) and file.name.endswith(split[1])
        )
    return [path]
