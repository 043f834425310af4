"""Which weights write the rewrites: those of a bundle, or the target's own; found, then loaded.

Both kinds are found before there is a plan, because they need memory, and loaded after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from alignpro_lite.assembly.shipped import bundle_path, row_path
from alignpro_lite.decoding import ort
from alignpro_lite.decoding.cancellation import LoadWatch
from alignpro_lite.decoding.probe import ProbedModel
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.hardware.memory import PrompterNeeds, TargetNeeds
from alignpro_lite.hardware.plan import Plan
from alignpro_lite.matching import bundle_for, known_target, mismatch
from alignpro_lite.prompter.bundle import Bundle, open_bundle
from alignpro_lite.prompter.decoder import DecoderSettings
from alignpro_lite.prompter.kv_cache import cache_bytes
from alignpro_lite.prompter.lora_file import open_lora
from alignpro_lite.prompter.onnx_prompter import OnnxPrompter
from alignpro_lite.prompter.own_weights import OwnWeights, SelfPrompter, own_weights
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.registry import DEFAULT, ModelStore
from alignpro_lite.registry.self_prompter import SelfName, self_name
from alignpro_lite.registry.storage import OnProgress, no_progress
from alignpro_lite.target.target import LlamaTarget

SEQUENCES = 16
"""Sequences that each engine decodes together at most."""


@dataclass(frozen=True)
class NamedTarget:
    """The target that prompts are rewritten for.

    Attributes:
        name: What was named, `default` for the target of the preset.
        path: Its GGUF file.
        file: Its header.
        conversation: Tokens of a conversation that there should be room for.
    """

    name: str | Path
    path: Path
    file: GgufFile
    conversation: int


class FoundPrompter(Protocol):
    """Weights that can write rewrites, checked and not loaded."""

    def needs(self, target: TargetNeeds) -> PrompterNeeds:
        """What it takes beside a target."""

    def mismatch(self, store: ModelStore, target: NamedTarget) -> str | None:
        """What a user has to know of it, if it was not made for a target."""

    def probed(self, plan: Plan, target: ProbedModel) -> ProbedModel:
        """How it is tried before it is loaded, and `target` how the target is."""

    @property
    def n_bytes(self) -> int:
        """Of its files, the target's own not counted."""

    def load(self, plan: Plan, target: Future[LlamaTarget], watch: LoadWatch) -> Prompter:
        """Load it where the plan puts it.

        Args:
            plan: Of both models.
            target: The target, which may still be loading.
            watch: Told how far it is.

        Raises:
            AlignProError: It cannot be loaded, or the target cannot.
        """


@dataclass(frozen=True)
class FoundBundle:
    """A bundle as the prompter."""

    bundle: Bundle

    def needs(self, target: TargetNeeds) -> PrompterNeeds:
        """Its files and the cache of one rewrite; see `FoundPrompter`."""
        del target  # it has weights and a context of its own
        graph = self.bundle.sidecar.graph
        cache = cache_bytes(graph, rows=1, length=self.bundle.sidecar.max_tokens)
        return PrompterNeeds(
            self.bundle.n_bytes + cache, graph.device == "cuda", ort.supports_cuda()
        )

    def mismatch(self, store: ModelStore, target: NamedTarget) -> str | None:
        """What its claim says of the target; see `matching.mismatch`."""
        return mismatch(store, self.bundle, target.name, target.path)

    def probed(self, plan: Plan, target: ProbedModel) -> ProbedModel:
        """See `FoundPrompter`."""
        del target
        return probed_bundle(self.bundle, self._settings(plan))

    @property
    def n_bytes(self) -> int:
        """See `FoundPrompter`."""
        return self.bundle.n_bytes

    def load(self, plan: Plan, target: Future[LlamaTarget], watch: LoadWatch) -> OnnxPrompter:
        """Load it while the target is loading; see `FoundPrompter`."""
        del target
        return OnnxPrompter(self.bundle, self._settings(plan), watch=watch)

    def _settings(self, plan: Plan) -> DecoderSettings:
        return DecoderSettings(
            device=plan.prompter_device or "cpu",
            gpu=plan.prompter_gpu.index if plan.prompter_gpu else 0,
            sequences=SEQUENCES,
            threads=plan.threads,
        )


@dataclass(frozen=True)
class FoundSelf:
    """The target's own weights as the prompter.

    Attributes:
        own: How they are asked.
        context: Tokens of the context that it has of its own if it has an adapter.
    """

    own: OwnWeights
    context: int

    def needs(self, target: TargetNeeds) -> PrompterNeeds:
        """Context of the target; with an adapter, that and a context of its own."""
        n_bytes = self.n_bytes
        if self.own.adapter is not None:
            n_bytes += target.in_ram(0, self.context).allocated_bytes
        return PrompterNeeds(n_bytes, target_context=self.own.context)

    def mismatch(self, store: ModelStore, target: NamedTarget) -> str | None:
        """None: it is made for its own target by construction."""
        del store, target
        return None

    def probed(self, plan: Plan, target: ProbedModel) -> ProbedModel:
        """The target, with its adapter if it has one; see `FoundPrompter`."""
        del plan
        if self.own.adapter is None:
            return target
        settings: Mapping[str, Any] = {"base": str(target.path), "target": dict(target.settings)}
        return ProbedModel("adapter", self.own.adapter, target.device, settings)

    @property
    def n_bytes(self) -> int:
        """Of the adapter; see `FoundPrompter`."""
        adapter = self.own.adapter
        return 0 if adapter is None else adapter.stat().st_size

    def load(self, plan: Plan, target: Future[LlamaTarget], watch: LoadWatch) -> SelfPrompter:
        """Wait for the target, which is all that there is to load; see `FoundPrompter`."""
        del plan
        prompter = SelfPrompter(target.result(), self.own, self.context)
        watch.report(1.0)
        return prompter


def find_prompter(
    prompter: str | Path,
    store: ModelStore,
    target: NamedTarget,
    on_progress: OnProgress = no_progress,
) -> FoundPrompter:
    """Find the weights that a name stands for.

    Args:
        prompter: A bundle folder, a name of models.toml, `self` for the target's own weights, or
            `default` for a bundle that was made for the target, else what the preset says.
        store: Where they are.
        target: What they rewrite for.
        on_progress: Told how far the assembly of a bundle is, on its first use.

    Raises:
        RegistryError: A name is unknown or its model is not installed.
        BundleError: It is damaged, or an adapter that does not fit.
        InputError: It is written in no way that `self` is.
    """
    if own := self_name(store.prompter_name(prompter)):
        return find_self(own, store, target)
    if prompter == DEFAULT:
        folder = row_path(store, bundle_for(store, target.name, target.path), on_progress)
    else:
        folder = bundle_path(store, prompter, on_progress)
    return FoundBundle(open_bundle(folder))


def find_self(own: SelfName, store: ModelStore, target: NamedTarget) -> FoundSelf:
    """The target's own weights, with an adapter that fits them if one is named.

    Raises:
        ModelFileError, BundleError: The adapter is damaged or does not fit.
    """
    lora = None
    if own.adapter is not None:
        known = known_target(store, target.name, target.path)
        lora = open_lora(own.adapter, target.file, known)
    weights = own_weights(own.mode, lora)
    return FoundSelf(weights, target.conversation + weights.context)


def probed_bundle(bundle: Bundle, settings: DecoderSettings) -> ProbedModel:
    """How a bundle is tried before it is loaded."""
    return ProbedModel("prompter", bundle.path, settings.device, asdict(settings))
