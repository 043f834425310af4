"""From names and options to loaded models: find the files, make one plan, load both.

The steps stand alone, so that `doctor` can plan without loading and `rewrite`
can load a prompter alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignpro_lite import registry
from alignpro_lite.errors import DeviceError
from alignpro_lite.gguf import header as gguf
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.hardware.plan import (
    Batching,
    DeviceRequest,
    EngineSupport,
    Plan,
    PrompterNeeds,
    make_plan,
)
from alignpro_lite.hardware.system import find_hardware
from alignpro_lite.prompter import decoder as onnx_decoder
from alignpro_lite.prompter.bundle import Bundle, Device, open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.registry import Cache, Kind, Registry, installed_path, resolve_model
from alignpro_lite.target import llama
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget

DEFAULT = "default"
"""Stands for the model that models.toml names as the default of its kind."""
SEQUENCES = 16
"""Sequences that each engine decodes together at most."""

Wanted = Literal["auto", "cuda", "cpu"]


def load_prompter(
    prompter: str | Path = DEFAULT,
    *,
    device: Wanted = "auto",
    adapter: float = 1.0,
    cache: Path | None = None,
) -> OnnxPrompter:
    """Load a prompter alone, to rewrite without answering.

    Args:
        prompter: A bundle folder, a name of models.toml, or `default`.
        device: `auto` takes the GPU if the bundle was built for it and there is one.
        adapter: What its adapter is multiplied with: 1 is ρ_θ, 0 is ρ_sft.
        cache: Folder of pulled models; None for the platform's own.

    Raises:
        AlignProError: The bundle or the device is missing or unusable.
    """
    hardware = find_hardware()
    path = path_of("bundle", prompter, registry.load(), Cache.open(cache))
    bundle = open_bundle(path)
    on_gpu = bundle.sidecar.graph.device == "cuda"
    if device == "cuda" and not on_gpu:
        raise DeviceError(
            f"{path} was built for the CPU and --device cuda was asked for.",
            "Build it with `alignpro-lite export prompter --device cuda`, or pass --device cpu.",
        )
    available = bool(hardware.gpus) and onnx_decoder.supports_cuda()
    used: Device = (
        "cuda" if device == "cuda" or (device == "auto" and on_gpu and available) else "cpu"
    )
    return OnnxPrompter(bundle, DecoderSettings(used, 0, SEQUENCES, hardware.cores), adapter)


@dataclass(frozen=True)
class Located:
    """The files of both models, checked but not loaded."""

    target: Path
    target_file: GgufFile
    bundle: Bundle | None


def find_target(target: str | Path, cache: Path | None) -> Path:
    """The GGUF file that a path or a name stands for.

    Raises:
        RegistryError: The name is unknown or its model is not installed.
    """
    return path_of("target", target, registry.load(), Cache.open(cache))


def locate(target: str | Path, prompter: str | Path | None, cache: Path | None) -> Located:
    """Find the files of both models and check them.

    Raises:
        RegistryError: A name is unknown or its model is not installed.
        ModelFileError, BundleError: A file is damaged or of another kind.
    """
    known, store = registry.load(), Cache.open(cache)
    path = path_of("target", target, known, store)
    target_file = gguf.read(path)
    gguf.require_text_generation(target_file)
    bundle = None if prompter is None else open_bundle(path_of("bundle", prompter, known, store))
    return Located(path, target_file, bundle)


def plan_for(located: Located, request: DeviceRequest) -> Plan:
    """One plan for both models on what hardware there is.

    Raises:
        DeviceError: What was asked for cannot be had.
    """
    bundle = located.bundle
    support = EngineSupport(
        llama_gpu_offload=llama.supports_gpu_offload(),
        onnx_cuda=bundle is not None and onnx_decoder.supports_cuda(),
    )
    needs = None
    if bundle is not None:
        graph = bundle.sidecar.graph
        cache_bytes = onnx_decoder.cache_bytes(graph, rows=1, length=bundle.sidecar.max_tokens)
        needs = PrompterNeeds(bundle.n_bytes + cache_bytes, graph.device == "cuda")
    batching = Batching(llama.MICRO_BATCH, SEQUENCES)
    return make_plan(request, located.target_file, needs, support, find_hardware(), batching)


def path_of(kind: Kind, name: str | Path, known: Registry, store: Cache) -> Path:
    """Where a model lies, from a path or a name.

    Raises:
        RegistryError: The name is unknown or its model is not installed.
    """
    if name == DEFAULT:
        return installed_path(known.default(kind), store)
    return resolve_model(kind, str(name), known, store)


def load_planned_target(located: Located, plan: Plan) -> LlamaTarget:
    """Load the target where the plan puts it.

    Raises:
        ModelFileError, DeviceError: See `LlamaTarget`.
    """
    settings = TargetSettings(
        context=plan.context,
        sequences=SEQUENCES,
        n_gpu_layers=plan.n_gpu_layers,
        gpu=plan.gpu.index if plan.gpu and plan.device == "cuda" else None,
        threads=plan.threads,
    )
    return LlamaTarget(located.target, located.target_file, settings)


def load_planned_prompter(located: Located, plan: Plan) -> OnnxPrompter | None:
    """Load the prompter where the plan puts it; None if there is none to load.

    Raises:
        BundleError, DeviceError, MissingDependencyError: See `OnnxPrompter`.
    """
    if located.bundle is None or plan.prompter_device is None:
        return None
    settings = DecoderSettings(
        device=plan.prompter_device,
        gpu=plan.gpu.index if plan.gpu else 0,
        sequences=SEQUENCES,
        threads=plan.threads,
    )
    return OnnxPrompter(located.bundle, settings)
