"""From eval.toml to loaded models, systems and prompts."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import InputError
from alignpro_lite.eval.config import (
    AnySystem,
    BestOfSection,
    BoundSection,
    DataSetSection,
    DialSection,
    EvalConfig,
    GivenSection,
    InstructionSection,
    NoPrompterSection,
    OracleSystemSection,
    PrompterSystemSection,
    ReferenceSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.summary import ModelUsed
from alignpro_lite.eval.systems import BestOf, Drawn, Fixed, Prompted, System
from alignpro_lite.experiment.models import open_llama, open_target
from alignpro_lite.experiment.prompts import read_prompts
from alignpro_lite.experiment.rows import Row, described, read_rows, text_of
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.experiment.sections import GgufSection, HuggingFaceSection, RewardSection
from alignpro_lite.experiment.split import prompt_position
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.loading import load_prompter
from alignpro_lite.prompter.bundle import Bundle, open_bundle
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.registry import ModelKind
from alignpro_lite.registry.digests import digests_of
from alignpro_lite.registry.storage import sha256_of
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.draw import DrawModels
from alignpro_lite.rewriting.request import RhoStar
from alignpro_lite.target.rollout import GgufTarget, Target
from alignpro_lite.target.target import LlamaTarget

_WITH_BUNDLE = PrompterSystemSection | RhoStarSection | DialSection | BoundSection


def prompts_of(config: EvalConfig, places: Places) -> tuple[dict[str, list[str]], list[str]]:
    """Read the prompts of every data set.

    Returns:
        Different prompts by data set, in an order fixed by the seed, and a sentence for every row
        that was left out.

    Raises:
        InputError: A file cannot be read, or holds too few prompts.
    """
    chosen: dict[str, list[str]] = {}
    notes: list[str] = []
    for section in config.data:
        rows = read_prompts(places.data / section.path, section.format)
        notes.extend(described({section.path: rows.bad}))
        usable = [one for one in dict.fromkeys(rows.rows) if _is_wanted(config, section, one)]
        random.Random(config.seed).shuffle(usable)
        chosen[section.name] = usable[: section.prompts]
        if len(usable) < 2:
            raise InputError(
                f"{section.name} needs at least 2 prompts, found {len(usable)} of at most "
                f"{config.longest_prompt} characters.",
                'Add data, raise longest_prompt, or set part = "all".',
            )
    return chosen, notes


def _is_wanted(config: EvalConfig, section: DataSetSection, prompt: str) -> bool:
    held_out = section.part == "all" or prompt_position(prompt) < config.held_out
    return held_out and len(prompt) <= config.longest_prompt


def texts_of(
    config: EvalConfig, places: Places, prompts: Mapping[str, list[str]]
) -> dict[str, Sequence[object]]:
    """All texts that answers hang on: the prompts, and the given rewrites, each with its prompt.

    Raises:
        InputError: A given rewrite is missing.
    """
    texts: dict[str, Sequence[object]] = {f"data {name}": rows for name, rows in prompts.items()}
    for section in config.system:
        if isinstance(section, GivenSection):
            rewrites = _given(section, places, prompts)
            texts[f"rewrites {section.name}"] = sorted(rewrites.items())
    return texts


class Loaded:
    """Models of an evaluation, each loaded once, at its first use."""

    def __init__(self, config: EvalConfig, places: Places, stack: ExitStack) -> None:
        """Load the target and the judges.

        Args:
            config: What is wanted.
            places: Where it lies.
            stack: Closes what is loaded.

        Raises:
            AlignProError: Something is missing or damaged.
        """
        self.config = config
        self._places = places
        self._stack = stack
        self._prompters: dict[tuple[str, float], OnnxPrompter] = {}
        self.llama: LlamaTarget | None = None
        self.target = self._open_target()
        self.judges: dict[str, Reward] = {
            judge.name: stack.enter_context(open_reward(judge.reward, places.store, usable_cores()))
            for judge in config.judge
        }

    def _open_target(self) -> Target:
        section, store = self.config.target, self._places.store
        if isinstance(section, GgufSection):
            self.llama = self._stack.enter_context(open_llama(section, store))
            return GgufTarget(self.llama)
        target = open_target(section, store)
        self._stack.callback(target.close)
        return target

    @property
    def reward(self) -> Reward:
        """The first judge."""
        return self.judges[self.config.judge[0].name]

    def require_llama(self, what: str) -> LlamaTarget:
        """The target as a GGUF file.

        Raises:
            InputError: It is another kind.
        """
        if self.llama is None:
            kind = self.config.target.__struct_config__.tag
            raise InputError(
                f"{what} needs a target of kind gguf, found {kind}.",
                "Change [target], or leave that out.",
            )
        return self.llama

    def bundle(self, name: str) -> Bundle:
        """A bundle by name or path."""
        return open_bundle(self._places.store.path("bundle", name))

    def prompter(self, name: str, adapter: float = 1.0) -> OnnxPrompter:
        """A bundle that stays loaded; its adapter is multiplied: 1 is ρ_θ, 0 is ρ_sft."""
        key = name, adapter
        if key not in self._prompters:
            self._prompters[key] = self._stack.enter_context(self.gated(name, adapter))
        return self._prompters[key]

    def gated(self, name: str, adapter: float) -> OnnxPrompter:
        """Load a bundle with its adapter multiplied; the caller closes it."""
        return load_prompter(name, self._places.store, adapter=adapter)

    def oracle(self, section: OracleSystemSection) -> LlamaTarget:
        """The oracle."""
        gguf = GgufSection(source=section.source, context=section.context)
        return self._stack.enter_context(open_llama(gguf, self._places.store))


def open_system(
    section: AnySystem, loaded: Loaded, places: Places, prompts: Mapping[str, list[str]]
) -> System:
    """Load a system.

    Raises:
        AlignProError: Its model is missing or damaged, or a given rewrite is.
    """
    match section:
        case NoPrompterSection():
            return Fixed(section.name, {})
        case InstructionSection():
            return Fixed(section.name, {}, before=f"{section.text}\n\n")
        case GivenSection():
            return Fixed(section.name, _given(section, places, prompts))
        case OracleSystemSection():
            return Fixed(section.name, {}, target=GgufTarget(loaded.oracle(section)))
        case BestOfSection():
            return BestOf(section.name, section.samples, loaded.config.judge[0].name)
        case ReferenceSystemSection():
            prompter = loaded.prompter(section.bundle, adapter=0.0)
            return Prompted(section.name, prompter, Sampling(), is_reference=True)
        case PrompterSystemSection():
            prompter = loaded.prompter(section.bundle)
            usual = prompter.bundle.sidecar.sampling
            return Prompted(section.name, prompter, usual, is_reference=False)
        case RhoStarSection():
            settings = RhoStar(
                samples=section.samples,
                strength=section.strength,
                answers=section.trials,
                guard=section.guard,
                trial_tokens=loaded.config.answers.max_tokens,
                returns=section.returns,
            )
            target = loaded.require_llama(section.name)
            models = DrawModels(loaded.prompter(section.bundle), target, loaded.reward)
            return Drawn(section.name, models, settings)


def _given(
    section: GivenSection, places: Places, prompts: Mapping[str, list[str]]
) -> dict[str, str]:
    def pair(row: Row) -> tuple[str, str]:
        prompt = text_of(row, section.prompt_key).strip()
        return prompt, text_of(row, section.rewrite_key).strip()

    rewrites = dict(read_rows(places.data / section.path, pair).rows)
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
    def used(role: str, kind: ModelKind, name: str) -> ModelUsed:
        return _model(role, name, places.store.path(kind, name))

    match config.target:
        case GgufSection(source=source):
            yield used("target", "target", source)
        case HuggingFaceSection(source=source):
            yield _model("target", source, Path(source))
    for judge in config.judge:
        for part in judge.reward:
            yield _scorer(f"judge {judge.name}", part, used)
    if config.pair_judge is not None:
        yield used("pair judge", "target", config.pair_judge.source)
    for section in (*config.system, config.dial, config.bound):
        if isinstance(section, _WITH_BUNDLE):
            yield used("prompter", "bundle", section.bundle)
        if isinstance(section, OracleSystemSection):
            yield used("oracle", "target", section.source)


def _scorer(
    role: str, part: RewardSection, used: Callable[[str, ModelKind, str], ModelUsed]
) -> ModelUsed:
    match part.kind:
        case "onnx":
            return used(role, "reward", part.source)
        case "judge":
            return used(role, "target", part.source)
        case "huggingface":
            return _model(role, part.source, Path(part.source))
        case "python":
            return ModelUsed(role, part.source, "", 0)


def _model(role: str, name: str, path: Path) -> ModelUsed:
    """A file by its digest, a folder by that of the list of its files' digests."""
    if not path.is_dir():
        return ModelUsed(role, name, sha256_of(path, path.name), path.stat().st_size)
    files = digests_of(path)
    size = sum((path / file).stat().st_size for file in files)
    listed = json.dumps(files, sort_keys=True).encode()
    return ModelUsed(role, name, hashlib.sha256(listed).hexdigest(), size)
