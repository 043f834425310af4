"""All models of an `AlignedModel`, loaded at the same time and watched by whoever waits."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignpro_lite.decoding.cancellation import Cancellation, LoadWatch, until_cancelled
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.hardware.plan import Plan
from alignpro_lite.loading import PlannedModels, plan_models
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.registry import ModelStore
from alignpro_lite.registry.storage import OnProgress, Progress
from alignpro_lite.reward.loading import open_reward, scorer_named
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.language import language_model
from alignpro_lite.target.target import LlamaTarget


@dataclass(frozen=True)
class ModelNames:
    """Which models to load; see `AlignedModel.load`."""

    target: str | Path
    prompter: str | Path | None
    reward: str | Path | None


@dataclass(frozen=True)
class LoadedModels:
    """Models that are loaded and ready, and where they are."""

    target: LlamaTarget
    prompter: Prompter | None
    reward: Reward | None
    plan: Plan

    def close(self) -> None:
        """Cancel what is running and free the memory."""
        for model in (self.prompter, self.reward, self.target):
            if model is not None:
                model.close()


class LoadProgress:
    """How far models are that load at the same time, for one listener, and their off switch."""

    def __init__(self, on_progress: OnProgress, cancellation: Cancellation) -> None:
        """Begin.

        Args:
            on_progress: The listener; it is called from several threads, by one at a time. What it
                raises ends the loading.
            cancellation: Stops the loading.
        """
        self.cancellation = cancellation
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._total = 0
        self._done: dict[str, int] = {}

    def tell(self, progress: Progress) -> None:
        """Pass on how far a single step is.

        Raises:
            CancelledError: It was cancelled.
        """
        self.cancellation.check()
        with self._lock:
            self._on_progress(progress)

    def begin(self, sizes: dict[str, int]) -> None:
        """Begin to load models of these sizes, in bytes."""
        self._total, self._done = sum(sizes.values()), dict.fromkeys(sizes, 0)
        self._report()

    def of(self, model: str, size: int) -> LoadWatch:
        """The watcher of one of the models."""

        def report(share: float) -> None:
            with self._lock:
                self._done[model] = max(self._done[model], int(share * size))
                self._report()

        return LoadWatch(self.cancellation, report)

    def _report(self) -> None:
        done = sum(self._done.values())
        self._on_progress(Progress("loading the models", done, self._total, "loading"))


def open_models(
    names: ModelNames, store: ModelStore, devices: DeviceRequest, progress: LoadProgress
) -> LoadedModels:
    """Load models on threads of their own; a caller who cancels gets away at once.

    llama.cpp and onnxruntime then stop within a tensor, a probe is killed. What is there already is
    closed.

    Raises:
        CancelledError: It was cancelled.
        AlignProError: A model, a device or a dependency is missing or unusable.
    """
    return until_cancelled(
        lambda: _loaded(names, store, devices, progress),
        progress.cancellation,
        LoadedModels.close,
    )


def _loaded(
    names: ModelNames, store: ModelStore, devices: DeviceRequest, progress: LoadProgress
) -> LoadedModels:
    planned = plan_models(names.target, names.prompter, store, devices, progress.tell)
    progress.tell(Progress("trying the models", 0, None, "trying"))
    planned.require_working(progress.cancellation)
    sizes = _sizes(planned)
    progress.begin(sizes)
    watches = {model: progress.of(model, size) for model, size in sizes.items()}
    with ThreadPoolExecutor(max_workers=4) as pool:
        answering = pool.submit(planned.load_target, watches["target"])
        rewriting = pool.submit(planned.load_prompter, answering, watches["prompter"])
        scoring = pool.submit(
            _load_reward, names.reward, store, planned.plan.threads, answering, progress
        )
        # Refusals need it: loaded here, the first rewrite does not wait for it.
        reading = [] if names.prompter is None else [pool.submit(language_model)]
    loading: list[Future[Any]] = [answering, rewriting, scoring]
    failures = [error for future in [*loading, *reading] if (error := future.exception())]
    if not failures:
        return LoadedModels(answering.result(), rewriting.result(), scoring.result(), planned.plan)
    for future in loading:
        # Close what did load: nobody else can.
        if not future.exception() and (loaded := future.result()):
            loaded.close()
    raise failures[0]


def _sizes(planned: PlannedModels) -> dict[str, int]:
    """Bytes of the files of target and prompter."""
    prompter = planned.prompter
    return {
        "target": _bytes_of(planned.target_file),
        "prompter": prompter.n_bytes if prompter is not None else 0,
    }


def _bytes_of(file: GgufFile) -> int:
    return sum(tensor.n_bytes for tensor in file.tensors)


def _load_reward(
    reward: str | Path | None,
    store: ModelStore,
    threads: int,
    target: Future[LlamaTarget],
    progress: LoadProgress,
) -> Reward | None:
    """Load a reward; one that needs the target waits for it."""
    if reward is None:
        return None
    source = scorer_named(reward)
    judging = target.result() if source.is_target else None
    watch = LoadWatch(progress.cancellation)
    return open_reward([source], store, threads, target=judging, watch=watch)
