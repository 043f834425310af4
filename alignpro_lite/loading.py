"""From names and options to loaded models: find the files, make one plan, load both.

Planning and loading are two steps, so that `doctor` can plan without loading;
`load_prompter` loads a prompter alone, for `rewrite`. A model is loaded only after it has worked
in a child process; see `decoding/probe.py`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from alignpro_lite.assembly.shipped import bundle_path, row_path
from alignpro_lite.decoding import ort
from alignpro_lite.decoding.backends import find_llama_devices
from alignpro_lite.decoding.probe import ProbedModel, require_working
from alignpro_lite.errors import DeviceError
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import Device, DeviceChoice, DeviceRequest
from alignpro_lite.hardware.memory import PrompterNeeds, TargetNeeds
from alignpro_lite.hardware.plan import Plan, PlanningCase
from alignpro_lite.hardware.planner import make_plan
from alignpro_lite.hardware.system import find_hardware
from alignpro_lite.matching import bundle_for, mismatch
from alignpro_lite.prompter.bundle import Bundle, open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.kv_cache import cache_bytes
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.registry import DEFAULT, Cache, ModelStore
from alignpro_lite.registry.storage import OnProgress, no_progress
from alignpro_lite.target import llama
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget

_LOG = logging.getLogger("alignpro_lite")
SEQUENCES = 16
"""Sequences that each engine decodes together at most."""
_PROBE_CONTEXT = 1024
"""The most tokens of context in a probe, which needs few."""


def load_prompter(
    prompter: str | Path,
    store: ModelStore,
    *,
    device: DeviceChoice = "auto",
    adapter: float = 1.0,
    on_progress: OnProgress = no_progress,
) -> OnnxPrompter:
    """Load a prompter alone, to rewrite without answering.

    Args:
        prompter: A bundle folder, a name of models.toml, or `default`.
        store: Where it is.
        device: `auto` takes the GPU if the bundle was built for it and there is one.
        adapter: What its adapter is multiplied by: 1 is ρ_θ, 0 is ρ_sft.
        on_progress: Told how far the assembly of a bundle is, on its first use.

    Raises:
        AlignProError: The bundle or the device is missing or unusable.
    """
    bundle, settings = plan_prompter(prompter, store, device, on_progress)
    require_working(probed_prompter(bundle, settings), store.cache)
    return OnnxPrompter(bundle, settings, adapter)


def plan_prompter(
    prompter: str | Path,
    store: ModelStore,
    device: DeviceChoice,
    on_progress: OnProgress = no_progress,
) -> tuple[Bundle, DecoderSettings]:
    """Find a prompter that is loaded alone, and decide where it runs; see `load_prompter`."""
    hardware = find_hardware()
    path = bundle_path(store, prompter, on_progress)
    bundle = open_bundle(path)
    on_gpu = bundle.sidecar.graph.device == "cuda"
    if device == "cuda" and not on_gpu:
        raise DeviceError(
            f"{path} was built for the CPU and --device cuda was asked for.",
            "Build it with `alignpro-lite export prompter --device cuda`, or pass --device cpu.",
        )
    available = bool(hardware.gpus) and ort.supports_cuda()
    usable = on_gpu and available and device != "cpu"
    used: Device = "cuda" if device == "cuda" or usable else "cpu"
    return bundle, DecoderSettings(used, 0, SEQUENCES, hardware.cores)


def probed_prompter(bundle: Bundle, settings: DecoderSettings) -> ProbedModel:
    """How a bundle is tried before it is loaded."""
    return ProbedModel("prompter", bundle.path, settings.device, asdict(settings))


@dataclass(frozen=True)
class PlannedModels:
    """Both models, checked and planned but not loaded.

    Attributes:
        target: The GGUF file.
        target_file: Its header.
        bundle: The prompter; None if there is none.
        plan: Where each of them runs.
        cache: Remembers which models need no probe.
    """

    target: Path
    target_file: GgufFile
    bundle: Bundle | None
    plan: Plan
    cache: Cache

    @property
    def target_settings(self) -> TargetSettings:
        """How the target is loaded."""
        plan = self.plan
        return TargetSettings(
            context=plan.context,
            sequences=SEQUENCES,
            n_gpu_layers=plan.n_gpu_layers,
            gpu=plan.gpu.name if plan.gpu else None,
            threads=plan.threads,
            longest=plan.longest,
            mapped=plan.mapped,
        )

    @property
    def probed_target(self) -> ProbedModel:
        """How the target is tried before it is loaded."""
        settings = self.target_settings
        small = replace(settings, context=min(settings.context, _PROBE_CONTEXT))
        return ProbedModel("target", self.target, self.plan.device, asdict(small))

    @property
    def prompter_settings(self) -> DecoderSettings | None:
        """How the prompter is loaded; None if there is none to load."""
        plan = self.plan
        if self.bundle is None or plan.prompter_device is None:
            return None
        return DecoderSettings(
            device=plan.prompter_device,
            gpu=plan.prompter_gpu.index if plan.prompter_gpu else 0,
            sequences=SEQUENCES,
            threads=plan.threads,
        )

    def require_working(self) -> None:
        """Try both models in child processes, if they were not tried before.

        Raises:
            ModelFileError, BundleError, DeviceError: See `probe.require_working`.
        """
        require_working(self.probed_target, self.cache)
        if self.bundle is not None and self.prompter_settings is not None:
            require_working(probed_prompter(self.bundle, self.prompter_settings), self.cache)

    def load_target(self) -> LlamaTarget:
        """Load the target where the plan puts it, after a probe.

        Raises:
            ModelFileError, DeviceError: See `probe.require_working` and `LlamaTarget`.
        """
        require_working(self.probed_target, self.cache)
        return LlamaTarget(self.target, self.target_file, self.target_settings)

    def load_prompter(self) -> OnnxPrompter | None:
        """Load the prompter where the plan puts it, after a probe; None if there is none to load.

        Raises:
            BundleError, DeviceError, MissingDependencyError: See `probe.require_working` and
                `OnnxPrompter`.
        """
        settings = self.prompter_settings
        if self.bundle is None or settings is None:
            return None
        require_working(probed_prompter(self.bundle, settings), self.cache)
        return OnnxPrompter(self.bundle, settings)


def plan_models(
    target: str | Path,
    prompter: str | Path | None,
    store: ModelStore,
    request: DeviceRequest,
    on_progress: OnProgress = no_progress,
) -> PlannedModels:
    """Find the files of both models, check them, and plan them on what hardware there is.

    Args:
        target: A GGUF file, a name of models.toml, or `default`.
        prompter: A bundle folder, a name of models.toml, or None for no prompter; `default` takes
            one that was made for the target, else that of the preset.
        store: Where they are.
        request: Where to run and how long a context.
        on_progress: Told how far the assembly of a bundle is, on its first use.

    Raises:
        RegistryError: A name is unknown or its model is not installed.
        ModelFileError, BundleError: A file is damaged or of another kind.
        DeviceError: The device or the context that was asked for is not available.
    """
    path = store.path("target", target)
    target_file = read_header(path)
    require_text_generation(target_file)
    bundle = None
    if prompter is not None:
        if prompter == DEFAULT:
            folder = row_path(store, bundle_for(store, target, path), on_progress)
        else:
            folder = bundle_path(store, prompter, on_progress)
        bundle = open_bundle(folder)
    target_needs = TargetNeeds(target_file, find_llama_devices(), llama.MICRO_BATCH, SEQUENCES)
    prompter_needs = None if bundle is None else _needs(bundle)
    plan = make_plan(PlanningCase(request, target_needs, prompter_needs, find_hardware()))
    if bundle is not None and (said := mismatch(store, bundle, target, path)):
        _LOG.info(said)
        plan = replace(plan, notes=(*plan.notes, said))
    return PlannedModels(path, target_file, bundle, plan, store.cache)


def _needs(bundle: Bundle) -> PrompterNeeds:
    graph = bundle.sidecar.graph
    cache = cache_bytes(graph, rows=1, length=bundle.sidecar.max_tokens)
    return PrompterNeeds(bundle.n_bytes + cache, graph.device == "cuda", ort.supports_cuda())
