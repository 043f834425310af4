"""What the answers of an evaluation depend on: its prompts, given rewrites, and its models."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from alignpro_lite.assembly.shipped import bundle_path
from alignpro_lite.errors import InputError
from alignpro_lite.eval.config import (
    BoundSection,
    DataSetSection,
    DialSection,
    EvalConfig,
    GivenSection,
    OracleSystemSection,
    PrompterSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.summary import ModelUsed
from alignpro_lite.experiment.prompts import prompt_position, read_prompts
from alignpro_lite.experiment.rows import Row, read_rows, text_of
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.experiment.sections import GgufSection, HuggingFaceSection
from alignpro_lite.registry import ModelKind, ModelStore
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.registry.storage import sha256_of
from alignpro_lite.reward.loading import TARGET, ScorerSource

_WITH_BUNDLE = PrompterSystemSection | RhoStarSection | DialSection | BoundSection


@dataclass(frozen=True)
class EvalPrompts:
    """The prompts of an evaluation, each list in an order fixed by the seed.

    Attributes:
        judged: Those that systems answer, by data set, without duplicates.
        spare: Others of the same files, taken from all of them in turn. Nothing is judged on them,
            so a choice may look at their answers.
        notes: A sentence for every row that was left out.
    """

    judged: Mapping[str, Sequence[str]]
    spare: Sequence[str]
    notes: Sequence[str]


def prompts_of(config: EvalConfig, places: Places) -> EvalPrompts:
    """Read the prompts of every data set.

    Raises:
        InputError: A file cannot be read, or holds too few prompts.
    """
    chosen: dict[str, list[str]] = {}
    others: list[list[str]] = []
    notes: list[str] = []
    for section in config.data:
        rows, bad = read_prompts(places.data / section.path, section.format)
        notes += [f"{section.path}: {row}" for row in bad]
        short = [row for row in dict.fromkeys(rows) if len(row) <= config.longest_prompt]
        usable = [prompt for prompt in short if _is_wanted(config, section, prompt)]
        random.Random(config.seed).shuffle(usable)
        chosen[section.name] = usable[: section.prompts]
        random.Random(config.seed).shuffle(short)
        others.append(short)
        if len(usable) < 2:
            raise InputError(
                f"{section.name} needs at least 2 prompts, found {len(usable)} of at most "
                f"{config.longest_prompt} characters.",
                'Add data, raise longest_prompt, or set part = "all".',
            )
    judged = {prompt for prompts in chosen.values() for prompt in prompts}
    spare = [prompt for prompt in mixed(others) if prompt not in judged]
    return EvalPrompts(chosen, spare, notes)


def mixed(lists: Sequence[Sequence[str]]) -> list[str]:
    """Take prompts from all lists in turn, each of them once."""
    turns = zip_longest(*lists)
    return list(dict.fromkeys(prompt for turn in turns for prompt in turn if prompt is not None))


def _is_wanted(config: EvalConfig, section: DataSetSection, prompt: str) -> bool:
    return section.part == "all" or prompt_position(prompt) < config.held_out


def texts_of(
    config: EvalConfig, places: Places, prompts: Mapping[str, Sequence[str]]
) -> dict[str, Sequence[object]]:
    """All texts that answers depend on: the prompts, and given rewrites with their prompts.

    Raises:
        InputError: A given rewrite is missing.
    """
    texts: dict[str, Sequence[object]] = {f"data {name}": rows for name, rows in prompts.items()}
    for section in config.system:
        if isinstance(section, GivenSection):
            rewrites = given_rewrites(section, places, prompts)
            texts[f"rewrites {section.name}"] = sorted(rewrites.items())
    return texts


def given_rewrites(
    section: GivenSection, places: Places, prompts: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Read rewrites that were made elsewhere, by their prompts.

    Raises:
        InputError: The file cannot be read, or a prompt has no rewrite in it.
    """

    def pair(row: Row) -> tuple[str, str]:
        prompt = text_of(row, section.prompt_key).strip()
        return prompt, text_of(row, section.rewrite_key).strip()

    rows, _ = read_rows(places.data / section.path, pair)
    rewrites = dict(rows)
    for name in section.data or prompts:
        missing = [prompt for prompt in prompts[name] if prompt not in rewrites]
        if missing:
            raise InputError(
                f"{section.name} has no rewrite of {len(missing)} of {len(prompts[name])} prompts "
                f"of {name}, the first: {missing[0]!r:.60}.",
                f"Name the data sets it has rewrites of: data = [...] in system {section.name}.",
            )
    return rewrites


def models_used(config: EvalConfig, places: Places) -> tuple[ModelUsed, ...]:
    """Every model that takes part, with its digest.

    Raises:
        AlignProError: One is missing.
    """
    return tuple(dict.fromkeys(_models_used(config, places)))


def _models_used(config: EvalConfig, places: Places) -> Iterator[ModelUsed]:
    store = places.store
    match config.target:
        case GgufSection(source=source):
            yield named_model("target", "target", source, store)
        case HuggingFaceSection(source=source):
            yield _model("target", source, Path(source))
    for judge in config.judge:
        for part in judge.reward:
            if not part.is_target:
                yield scorer_used(f"judge {judge.name}", part, store)
    if config.pair_judge is not None and config.pair_judge.source != TARGET:
        yield named_model("pair judge", "target", config.pair_judge.source, store)
    for section in (*config.system, config.dial, config.bound):
        if isinstance(section, _WITH_BUNDLE):
            # Assembled now if it must be: what is loaded later is what the report says.
            folder = bundle_path(store, section.bundle)
            yield _model("prompter", section.bundle, folder)
        if isinstance(section, OracleSystemSection):
            yield named_model("oracle", "target", section.source, store)


def scorer_used(role: str, part: ScorerSource, store: ModelStore) -> ModelUsed:
    """What a scorer is made of, with its digest; a function has none.

    Raises:
        RegistryError: It is unknown or not installed.
    """
    match part.kind:
        case "onnx":
            return named_model(role, "reward", part.source, store)
        case "judge":
            return named_model(role, "target", part.source, store)
        case "huggingface":
            return _model(role, part.source, Path(part.source))
        case "python":
            return ModelUsed(role, part.source, "", 0)


def named_model(role: str, kind: ModelKind, name: str, store: ModelStore) -> ModelUsed:
    """A model by its name or path, with its digest.

    Raises:
        RegistryError: It is unknown or not installed.
    """
    return _model(role, name, store.path(kind, name))


def _model(role: str, name: str, path: Path) -> ModelUsed:
    """A file by its digest, a folder by that of the list of its files' digests."""
    if not path.is_dir():
        return ModelUsed(role, name, sha256_of(path, path.name), path.stat().st_size)
    files = digests_of(path)
    size = sum((path / file).stat().st_size for file in files)
    listed = json.dumps(files, sort_keys=True).encode()
    return ModelUsed(role, name, hashlib.sha256(listed).hexdigest(), size)
