"""From names in a configuration to what takes part in a run. Only models in torch import torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from alignpro_lite.experiment.prompts import (
    Prompts,
    Task,
    read_tasks,
    references_of,
    split_prompts,
)
from alignpro_lite.experiment.sections import (
    EndpointSection,
    GgufSection,
    HuggingFaceSection,
    PromptDataSection,
    TargetSection,
)
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.loading import plan_models
from alignpro_lite.matching import known_target
from alignpro_lite.prompter.targets import KnownTarget
from alignpro_lite.registry import ModelStore
from alignpro_lite.target.openai import OpenAiTarget
from alignpro_lite.target.rollout import GgufTarget, Target
from alignpro_lite.target.target import LlamaTarget


def open_target(section: TargetSection, store: ModelStore) -> Target:
    """Load or reach the frozen target.

    Raises:
        AlignProError: It is missing, damaged or unreachable.
    """
    match section:
        case GgufSection():
            return GgufTarget(open_llama(section, store))
        case EndpointSection():
            key = section.key_variable
            return OpenAiTarget(section.url, section.model, key, parallel=section.parallel)
        case HuggingFaceSection():
            from alignpro_lite.pretrained.torch_model import load_torch_model
            from alignpro_lite.target.torch_target import HfTarget

            source = load_torch_model(store.path("target", section.source))
            return HfTarget(source, section.device, section.dtype, rows=section.rows)


def target_of(section: TargetSection, store: ModelStore) -> KnownTarget:
    """The target as the card of a prompter names it.

    Raises:
        AlignProError: It is missing or cannot be read.
    """
    match section:
        case EndpointSection(model=model):
            return KnownTarget(model, None)
        case GgufSection(source=source) | HuggingFaceSection(source=source):
            path = store.path("target", source)
            if path.is_dir():
                return KnownTarget(path.name, None)
            return known_target(store, source, path)


def open_llama(section: GgufSection, store: ModelStore, prompter: str | None = None) -> LlamaTarget:
    """Load a GGUF file.

    Args:
        section: Which one.
        store: Where it is.
        prompter: What else will take some of its context or of the memory; None for nothing.

    Raises:
        AlignProError: It is missing or damaged.
    """
    request = DeviceRequest("auto", None, section.context)
    return plan_models(section.source, prompter, store, request).load_target()


def load_prompts(
    section: PromptDataSection,
    folder: Path,
    request: Callable[[str], Sequence[int]],
    seed: int,
    note: Callable[[str], None],
) -> Prompts:
    """Read and split the prompts.

    Args:
        section: The files.
        folder: What relative paths start from.
        request: Token ids that ask the prompter for a rewrite; what a prompt adds is its length.
        seed: Of the order.
        note: Called with which rows are left out, and how many prompts there are.

    Raises:
        InputError: A file cannot be read, or there are too few prompts.
    """
    tasks: list[Task] = []
    for file in section.prompts:
        found, bad = read_tasks(folder / file.path, file.format, file.reference)
        tasks += found[: file.most]
        for row in bad:
            note(f"{file.path}: {row}")
    empty = len(request(""))
    prompts = split_prompts(
        [task.prompt for task in tasks],
        section.held_out,
        seed,
        lambda prompt: len(request(prompt)) - empty,
        section.max_prompt_tokens,
    )
    note(
        f"{len(prompts.train)} prompts to train on, {len(prompts.held_out)} held out, "
        f"{prompts.too_long} too long."
    )
    return replace(prompts, references=references_of(tasks))
