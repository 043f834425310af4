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
from alignpro_lite.eval.arms import with_controls
from alignpro_lite.eval.config import (
    BoundSection,
    ConstantSystemSection,
    DataSetSection,
    DialSection,
    EvalConfig,
    GivenSection,
    HeadroomSection,
    OracleSystemSection,
    PrompterSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.hints import read_hints
from alignpro_lite.eval.summary import ModelUsed
from alignpro_lite.experiment.prompts import (
    Task,
    prompt_position,
    read_labels,
    read_tasks,
    references_of,
)
from alignpro_lite.experiment.rows import Row, read_rows, text_of
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.experiment.sections import (
    GgufSection,
    HuggingFaceSection,
    PromptFileSection,
)
from alignpro_lite.registry import ModelKind, ModelStore
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.registry.record import plain
from alignpro_lite.registry.self_prompter import self_name
from alignpro_lite.registry.storage import sha256_of
from alignpro_lite.reward.exchange import References
from alignpro_lite.reward.loading import TARGET, ScorerSource

_WITH_BUNDLE = PrompterSystemSection | RhoStarSection | DialSection | BoundSection | HeadroomSection


@dataclass(frozen=True)
class EvalPrompts:
    """The prompts of an evaluation, each list in an order fixed by the seed.

    Attributes:
        judged: Those that systems answer, by data set, without duplicates.
        spare: Training prompts, taken from all files in turn: those of [constant], else others of
            the same files. Nothing is judged on them, so a choice may look at their answers.
        references: What is known about right answers, by the prompt.
        kinds: Kinds of prompts, as rows name them under the key of their data set.
        notes: A sentence for every row that was left out.
    """

    judged: Mapping[str, Sequence[str]]
    spare: Sequence[str]
    references: References
    kinds: Mapping[str, str]
    notes: Sequence[str]


def prompts_of(config: EvalConfig, places: Places) -> EvalPrompts:
    """Read the prompts of every data set.

    Raises:
        InputError: A file cannot be read, or holds too few prompts.
    """
    chosen: dict[str, list[str]] = {}
    others: list[list[str]] = []
    tasks: list[Task] = []
    kinds: dict[str, str] = {}
    notes: list[str] = []
    for section in config.data:
        read = _short_tasks(config, places, section, notes)
        tasks += read
        short = _prompts_of(read)
        usable = [prompt for prompt in short if _is_wanted(config, section, prompt)]
        random.Random(config.seed).shuffle(usable)
        chosen[section.name] = usable[: section.prompts]
        others.append([prompt for prompt in short if not _is_held_out(config, section, prompt)])
        if section.kind_key is not None:
            kinds |= read_labels(places.data / section.path, section.format, section.kind_key)
        if len(usable) < 2:
            raise InputError(
                f"{section.name} needs at least 2 prompts, found {len(usable)} of at most "
                f"{config.longest_prompt} characters.",
                'Add data, raise longest_prompt, or set part = "all".',
            )
    if config.constant.prompts:
        training = [_short_tasks(config, places, file, notes) for file in config.constant.prompts]
        tasks += [task for file in training for task in file]
        others = [_prompts_of(file) for file in training]
    for texts in others:
        random.Random(config.seed).shuffle(texts)
    judged = {prompt for prompts in chosen.values() for prompt in prompts}
    spare = [prompt for prompt in mixed(others) if prompt not in judged]
    found = EvalPrompts(chosen, spare, references_of(tasks), kinds, notes)
    _require_references(config, found)
    return found


def _short_tasks(
    config: EvalConfig, places: Places, file: PromptFileSection, notes: list[str]
) -> list[Task]:
    """The rows of a file whose prompts are not too long; adds a note for every bad row."""
    rows, bad = read_tasks(places.data / file.path, file.format, file.reference)
    notes += [f"{file.path}: {row}" for row in bad]
    return [row for row in rows if len(row.prompt) <= config.longest_prompt]


def _prompts_of(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(task.prompt for task in tasks))


def _require_references(config: EvalConfig, prompts: EvalPrompts) -> None:
    """Refuse a check of answers to prompts of which nothing is known: it would call them wrong."""
    checking = [
        judge.name for judge in config.judge if any(part.kind == "check" for part in judge.reward)
    ]
    for name, rows in prompts.judged.items():
        missing = [prompt for prompt in rows if prompt not in prompts.references]
        if checking and missing:
            raise InputError(
                f"The judge {checking[0]} checks answers against a reference, and {len(missing)} "
                f"of {len(rows)} prompts of {name} have none, the first: {missing[0]!r:.60}.",
                f"Set reference or a format with references in data {name}, or judge that data "
                "in an evaluation of its own.",
            )


def mixed(lists: Sequence[Sequence[str]]) -> list[str]:
    """Take prompts from all lists in turn, each of them once."""
    turns = zip_longest(*lists)
    return list(dict.fromkeys(prompt for turn in turns for prompt in turn if prompt is not None))


def _is_wanted(config: EvalConfig, section: DataSetSection, prompt: str) -> bool:
    return section.part == "all" or prompt_position(prompt) < config.held_out


def _is_held_out(config: EvalConfig, section: DataSetSection, prompt: str) -> bool:
    """Whether a prompt is one that training never sees, in a data set that tells them apart."""
    return section.part == "held_out" and prompt_position(prompt) < config.held_out


def texts_of(
    config: EvalConfig, places: Places, prompts: EvalPrompts
) -> dict[str, Sequence[object]]:
    """All texts that results depend on: prompts, their references, given rewrites, and hints.

    Raises:
        InputError: A given rewrite is missing, or the hints cannot be read.
    """
    texts: dict[str, Sequence[object]] = {}
    for name, rows in prompts.judged.items():
        texts[f"data {name}"] = rows
        known = [(row, prompts.references[row]) for row in rows if row in prompts.references]
        if known:
            texts[f"references {name}"] = [(row, found.check, found.text) for row, found in known]
    for section in with_controls(config.system):
        if isinstance(section, GivenSection):
            rewrites = given_rewrites(section, places, prompts.judged)
            texts[f"rewrites {section.name}"] = sorted(rewrites.items())
        if isinstance(section, ConstantSystemSection):
            hints = read_hints(config.constant.file(places.data))
            texts["hints"] = [plain(hint) for hint in hints]
            texts["prompts to choose a hint on"] = prompts.spare
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


def prompters_of(config: EvalConfig) -> Iterator[str]:
    """The prompters that take part, as they are named."""
    for section in (*config.system, config.dial, config.bound, config.headroom):
        if isinstance(section, _WITH_BUNDLE):
            yield section.bundle


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
    for name in prompters_of(config):
        own = self_name(store.prompter_name(name))
        if own is None:
            # Assembled now if it must be: what is loaded later is what the report says.
            yield _model("prompter", name, bundle_path(store, name))
        elif own.adapter is not None:
            yield _model("prompter", name, own.adapter)
    for section in config.system:
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
        case "python" | "check":
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
