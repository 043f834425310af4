"""From names and options to loaded models: find the files, make one plan, load both.

Planning and loading are two steps, so that `doctor` can plan without loading;
`load_prompter` loads a bundle alone, for `rewrite`. A model is loaded only after it has worked
in a child process; see `decoding/probe.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

from alignpro_lite.assembly.shipped import bundle_path
from alignpro_lite.decoding import ort
from alignpro_lite.decoding.backends import find_llama_devices
from alignpro_lite.decoding.cancellation import Cancellation, LoadWatch
from alignpro_lite.decoding.probe import ProbedModel, require_working
from alignpro_lite.errors import DeviceError
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import Device, DeviceChoice, DeviceRequest
from alignpro_lite.hardware.memory import TargetNeeds
from alignpro_lite.hardware.plan import Plan, PlanningCase, usual_conversation
from alignpro_lite.hardware.planner import make_plan
from alignpro_lite.hardware.system import find_hardware
from alignpro_lite.prompter.bundle import Bundle, open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.prompters import (
    SEQUENCES,
    FoundPrompter,
    NamedTarget,
    find_prompter,
    probed_bundle,
)
from alignpro_lite.registry import Cache, ModelStore
from alignpro_lite.registry.self_prompter import self_name
from alignpro_lite.registry.storage import OnProgress, no_progress
from alignpro_lite.target import llama
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget

_LOG = logging.getLogger("alignpro_lite")
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
    """Load a bundle alone, to rewrite without answering.

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
    require_working(probed_bundle(bundle, settings), store.cache)
    return OnnxPrompter(bundle, settings, adapter)


def open_prompter(
    prompter: str | Path,
    target: str | Path,
    store: ModelStore,
    device: DeviceChoice,
    on_progress: OnProgress = no_progress,
) -> AbstractContextManager[Prompter]:
    """Load a prompter alone, whatever its weights are.

    Args:
        prompter: See `find_prompter`.
        target: Whose weights write if the prompter is `self`; otherwise it is not looked at.
        store: Where both are.
        device: Where it runs; see `load_prompter`.
        on_progress: Told how far the assembly of a bundle is, on its first use.

    Returns:
        The loaded prompter, to be entered; leaving it frees all that was loaded.

    Raises:
        AlignProError: Something is missing or unusable.
    """
    if self_name(store.prompter_name(prompter)) is None:
        return load_prompter(prompter, store, device=device, on_progress=on_progress)
    planned = plan_models(target, prompter, store, DeviceRequest(device))
    return _opened(planned.load_target(), planned)


@contextmanager
def _opened(target: LlamaTarget, planned: PlannedModels) -> Iterator[Prompter]:
    """The prompter of a target that is closed with it."""
    loaded: Future[LlamaTarget] = Future()
    loaded.set_result(target)
    with target, cast(Prompter, planned.load_prompter(loaded)) as prompter:  # one was planned
        yield prompter


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


@dataclass(frozen=True)
class PlannedModels:
    """Both models, checked and planned but not loaded.

    Attributes:
        target: The GGUF file.
        target_file: Its header.
        prompter: What rewrites; None if there is none.
        plan: Where each of them runs.
        cache: Remembers which models need no probe.
    """

    target: Path
    target_file: GgufFile
    prompter: FoundPrompter | None
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
    def probed_prompter(self) -> ProbedModel | None:
        """How the prompter is tried before it is loaded; None if there is none."""
        if self.prompter is None:
            return None
        return self.prompter.probed(self.plan, self.probed_target)

    def require_working(self, cancellation: Cancellation) -> None:
        """Try both models in child processes, if they were not tried before.

        Raises:
            ModelFileError, BundleError, DeviceError: See `probe.require_working`.
            CancelledError: It was cancelled.
        """
        for probed in (self.probed_target, self.probed_prompter):
            if probed is not None:
                require_working(probed, self.cache, cancellation)

    def load_target(self, watch: LoadWatch | None = None) -> LlamaTarget:
        """Load the target where the plan puts it, after a probe.

        Raises:
            ModelFileError, DeviceError: See `probe.require_working` and `LlamaTarget`.
            CancelledError: The watcher has cancelled it.
        """
        watch = watch or LoadWatch()
        require_working(self.probed_target, self.cache, watch.cancellation)
        return LlamaTarget(self.target, self.target_file, self.target_settings, watch)

    def load_prompter(
        self, target: Future[LlamaTarget], watch: LoadWatch | None = None
    ) -> Prompter | None:
        """Load the prompter where the plan puts it, after a probe; None if there is none to load.

        Args:
            target: The target, which may still be loading.
            watch: Told how far the prompter is.

        Raises:
            AlignProError: See `probe.require_working` and `FoundPrompter.load`.
        """
        if self.prompter is None or (probed := self.probed_prompter) is None:
            return None
        watch = watch or LoadWatch()
        require_working(probed, self.cache, watch.cancellation)
        return self.prompter.load(self.plan, target, watch)


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
        prompter: See `find_prompter`; None for no prompter.
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
    named = NamedTarget(target, path, target_file, usual_conversation(request, target_file))
    found = None if prompter is None else find_prompter(prompter, store, named, on_progress)
    needs = TargetNeeds(target_file, find_llama_devices(), llama.MICRO_BATCH, SEQUENCES)
    rewriting = found.needs(needs) if found is not None else None
    plan = make_plan(PlanningCase(request, needs, rewriting, find_hardware()))
    if found is not None and (said := found.mismatch(store, named)):
        _LOG.info(said)
        plan = replace(plan, notes=(*plan.notes, said))
    return PlannedModels(path, target_file, found, plan, store.cache)
