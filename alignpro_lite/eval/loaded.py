"""The models of an evaluation, loaded, and the systems made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from alignpro_lite.assembly.shipped import bundle_path
from alignpro_lite.errors import InputError
from alignpro_lite.eval.bench import Bench, System
from alignpro_lite.eval.config import (
    AnySystem,
    BestOfSection,
    ConstantSystemSection,
    EvalConfig,
    GivenSection,
    InstructionSection,
    NoPrompterSection,
    OracleSystemSection,
    PrompterSystemSection,
    ReadTwiceSection,
    ReferenceSystemSection,
    RhoStarSection,
)
from alignpro_lite.eval.inputs import given_rewrites, prompters_of
from alignpro_lite.eval.systems import (
    draw_rewrites,
    keep_best,
    read_twice,
    run_prompts,
    send_fixed,
    send_rewrites,
)
from alignpro_lite.experiment.models import open_llama, open_target
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.experiment.sections import GgufSection
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.loading import load_prompter
from alignpro_lite.prompter.bundle import open_bundle
from alignpro_lite.prompter.own_weights import SelfPrompter
from alignpro_lite.prompter.profile import PrompterProfile
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.prompter.template import AUGMENT, RewriteTemplate
from alignpro_lite.prompters import FoundSelf, NamedTarget, find_self
from alignpro_lite.registry.self_prompter import SelfName, self_name
from alignpro_lite.reward.exchange import References
from alignpro_lite.reward.loading import TARGET, open_reward
from alignpro_lite.reward.reward import Reward
from alignpro_lite.reward.rivals import rival_source
from alignpro_lite.rewriting.draw import DrawModels
from alignpro_lite.rewriting.request import RhoStar
from alignpro_lite.target.rollout import GgufTarget, Target, chooser_of
from alignpro_lite.target.target import LlamaTarget


class Loaded:
    """Models of an evaluation, each loaded once, at its first use."""

    def __init__(
        self, config: EvalConfig, places: Places, references: References, stack: ExitStack
    ) -> None:
        """Load the target and the judges.

        Args:
            config: What to load.
            places: Where things are.
            references: What is known about right answers, by the prompt.
            stack: Closes what is loaded.

        Raises:
            AlignProError: Something is missing or damaged.
        """
        self.config = config
        self._places = places
        self._stack = stack
        self._prompters: dict[tuple[str, float], Prompter] = {}
        self.llama: LlamaTarget | None = None
        self.target = self._open_target()
        judging = chooser_of(self.target)
        self.judges: dict[str, Reward] = {
            judge.name: stack.enter_context(
                open_reward(judge.reward, places.store, usable_cores(), references, judging)
            )
            for judge in config.judge
        }
        if config.pair_judge is not None and config.pair_judge.source == TARGET:
            self.require_llama("A pair judge that is the target")
        needed = max(reward.rivals for reward in self.judges.values())
        self.rivals = rival_source(needed, self.target, config.answers, config.seed)

    def _open_target(self) -> Target:
        section, store = self.config.target, self._places.store
        if isinstance(section, GgufSection):
            names = map(store.prompter_name, prompters_of(self.config))
            own = next(filter(self_name, names), None)
            self.llama = self._stack.enter_context(open_llama(section, store, own))
            return GgufTarget(self.llama)
        target = open_target(section, store)
        self._stack.callback(target.close)
        return target

    @property
    def bench(self) -> Bench:
        """What all systems share."""
        return Bench(self.target, self.judges, self.config.answers, self.rivals)

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
                "Change [target], or remove what needs it.",
            )
        return self.llama

    def profile(self, name: str) -> PrompterProfile:
        """How a prompter is asked, and what it was trained with."""
        if own := self_name(self._places.store.prompter_name(name)):
            return self._own(name, own).own.profile
        return open_bundle(bundle_path(self._places.store, name)).profile

    def template(self, name: str) -> RewriteTemplate:
        """What a prompter is asked."""
        return self.profile(name).template

    def prompter(self, name: str, adapter: float = 1.0) -> Prompter:
        """A prompter that stays loaded, its adapter multiplied: 1 is ρ_θ, 0 is ρ_sft."""
        key = name, adapter
        if key not in self._prompters:
            self._prompters[key] = self._stack.enter_context(self.gated(name, adapter))
        return self._prompters[key]

    def gated(self, name: str, adapter: float) -> Prompter:
        """Load a prompter with its adapter multiplied; the caller closes it."""
        if own := self_name(self._places.store.prompter_name(name)):
            found = self._own(name, own)
            return SelfPrompter(self._own_target(name), found.own, found.context, adapter)
        return load_prompter(name, self._places.store, adapter=adapter)

    def _own(self, name: str, own: SelfName) -> FoundSelf:
        """The target's own weights as a prompter."""
        target = self._own_target(name)
        room = target.settings.longest or target.settings.context
        named = NamedTarget(target.path, target.path, target.file, room)
        return find_self(own, self._places.store, named)

    def _own_target(self, name: str) -> LlamaTarget:
        return self.require_llama(
            f"The prompter {name}, which is the target and needs its exact log-probabilities,"
        )

    def oracle(self, section: OracleSystemSection) -> LlamaTarget:
        """The oracle."""
        gguf = GgufSection(source=section.source, context=section.context)
        return self._stack.enter_context(open_llama(gguf, self._places.store))


def open_system(
    section: AnySystem,
    loaded: Loaded,
    places: Places,
    prompts: Mapping[str, Sequence[str]],
    hint: str,
) -> System:
    """Load a system.

    Args:
        section: The system.
        loaded: The models.
        places: Where things are.
        prompts: The prompts of each data set.
        hint: The best constant hint.

    Raises:
        AlignProError: Its model is missing or damaged, or a given rewrite is.
    """
    match section:
        case NoPrompterSection():
            return send_fixed
        case InstructionSection():
            return partial(send_fixed, rewrite=lambda prompt: f"{section.text}\n\n{prompt}")
        case ReadTwiceSection():
            return partial(send_fixed, rewrite=read_twice)
        case ConstantSystemSection():
            return partial(send_fixed, rewrite=lambda prompt: AUGMENT.apply(prompt, hint))
        case GivenSection():
            rewrites = given_rewrites(section, places, prompts)
            return partial(send_fixed, rewrite=rewrites.__getitem__)
        case OracleSystemSection():
            return partial(send_fixed, target=GgufTarget(loaded.oracle(section)))
        case BestOfSection():
            judge = loaded.config.judge[0].name
            return partial(keep_best, samples=section.samples, judge=judge)
        case PrompterSystemSection():
            # ρ_sft is the same prompter with its adapter off, drawn with the same settings.
            adapter = 0.0 if isinstance(section, ReferenceSystemSection) else 1.0
            prompter = loaded.prompter(section.bundle, adapter)
            sampling = prompter.profile.sampling
            return partial(send_rewrites, prompter=prompter, sampling=sampling)
        case RhoStarSection():
            settings = RhoStar(
                samples=section.samples,
                strength=section.strength,
                answers=section.trials,
                guard=section.guard,
                trial_tokens=section.trial_tokens,
                returns=section.returns,
            )
            target = loaded.require_llama(section.name)
            models = DrawModels(loaded.prompter(section.bundle), target, loaded.reward)
            answered = run_prompts if section.returns == "scored" else draw_rewrites
            return partial(answered, models=models, settings=settings)
