"""One prompter run from its configuration to its report, in a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import InputError
from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.report.markdown import as_markdown, exchanges_as_markdown
from alignpro_lite.eval.summary import write_summary
from alignpro_lite.experiment.models import open_target, target_of
from alignpro_lite.experiment.prompts import Prompts
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.pretrained.adapter import ADAPTER_FOLDER, save_adapter
from alignpro_lite.prompter.card import PROMPTER_CARD, PrompterCard, read_prompter_card
from alignpro_lite.prompter.targets import TargetClaim
from alignpro_lite.prompter.template import TEMPLATES, RewriteTemplate
from alignpro_lite.registry.entries import RewriteMode
from alignpro_lite.registry.models_toml import adapter_folder
from alignpro_lite.registry.record import write_record
from alignpro_lite.registry.storage import write_text
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.reward.rivals import rival_source
from alignpro_lite.target.rollout import chooser_of
from alignpro_lite.train.loop import PolicyTrainer
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import PrompterConfig, PrompterSection
from alignpro_lite.train.prompter.held_out import (
    LEARNED,
    REWARD,
    SECOND,
    Measuring,
    figures_of,
    measure,
)
from alignpro_lite.train.rollout import Learner
from alignpro_lite.train.run import PolicyTask, train_policy
from alignpro_lite.train.stacking import stack_on

REPORT = "report.md"
"""Written last: it marks a run that is done."""


def train_prompter(config: PrompterConfig, places: Places, note: Callable[[str], None]) -> bool:
    """Start a run or resume it, and write its adapter and report when it is done.

    Args:
        config: What to train.
        places: Where things are.
        note: Called with each progress message, by the main process only.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        AlignProError: Something is missing, damaged, or failed too often.
    """
    section = config.prompter

    def load_policy(device: str) -> Policy:
        base = places.store.path("prompter", section.base)
        template, seed = template_of(section, places.data), config.training.seed
        reference = reference_adapter(section, places.data)
        return Policy(base, template, section, section.max_tokens, device, seed, reference)

    def finish(trainer: PolicyTrainer, learner: Learner, prompts: Prompts) -> None:
        _finish(config, places, learner, prompts, note)

    task = PolicyTask(
        result=REPORT,
        load_policy=load_policy,
        open_targets=tuple(
            partial(open_target, section, places.store) for section in config.targets
        ),
        plan=config.answers,
        sampling=Sampling(),
        stopping=None,
        watched=0,
        scaling=config.scaling,
        finish=finish,
    )
    return train_policy(config, places, note, task)


def template_of(section: PrompterSection, folder: Path) -> RewriteTemplate:
    """What the prompter is asked, in training and ever after.

    Args:
        section: Names the mode and, where the words are not the neutral ones, their adapter.
        folder: What a relative path of it starts at.

    Raises:
        AlignProError: See `words_of`.
    """
    for key in ("reference", "template"):
        if (name := getattr(section, key)) is not None:
            return words_of(name, f"prompter.{key}", section.mode, folder)
    return TEMPLATES[section.mode]


def words_of(name: str, key: str, mode: RewriteMode, folder: Path) -> RewriteTemplate:
    """The words that an adapter was trained in.

    Args:
        name: Its name in the package, or `file:path`.
        key: Where it is named, for messages.
        mode: The mode that it must have.
        folder: What a relative path starts at.

    Raises:
        RegistryError: There is no such adapter.
        BundleError: Its card is damaged.
        InputError: It has no card, or was trained in another mode.
    """
    adapter = adapter_folder(name, folder)
    card = read_prompter_card(adapter)
    if card is None or card.template.mode != mode:
        found = "none" if card is None else f"the mode {card.template.mode}"
        raise InputError(
            f"{key} must name an adapter with a card of the mode {mode}, found {found} in "
            f"{adapter}.",
            f"Correct {key} or prompter.mode.",
        )
    return card.template


def reference_adapter(section: PrompterSection, folder: Path) -> Path | None:
    """The folder of the adapter that makes ρ_sft of the base."""
    return None if section.reference is None else adapter_folder(section.reference, folder)


def _finish(
    config: PrompterConfig,
    places: Places,
    learner: Learner,
    prompts: Prompts,
    note: Callable[[str], None],
) -> None:
    """Write the adapter, measure it on held-out prompts, and write the report."""
    policy, run = learner.policy, places.run
    # First without figures: a failure while measuring must not cost the adapter.
    claim = TargetClaim(tuple(target_of(section, places.store) for section in config.targets))
    _write_adapter(config, places, learner, claim, {})
    with ExitStack() as stack:
        judges = {REWARD: learner.reward}
        if config.second_reward:
            target = chooser_of(learner.target)
            second = open_reward(
                config.second_reward, places.store, usable_cores(), prompts.references, target
            )
            judges[SECOND] = stack.enter_context(second)
        needed = max(reward.rivals for reward in judges.values())
        rivals = rival_source(needed, learner.target, learner.plan, config.training.seed)
        plan = learner.plan.with_count(config.report.answers)
        bench = Bench(learner.target, judges, plan, rivals)
        held_out = prompts.held_out[: config.report.prompts]
        measuring = Measuring(config, policy, bench, held_out, prompts.train)
        summary, records = measure(measuring, places, note)
    write_summary(run, summary)
    _write_adapter(config, places, learner, claim, figures_of(summary, LEARNED))
    exchanges = exchanges_as_markdown(summary, records, LEARNED)
    # Last: the report marks a run that is done.
    write_text(run / REPORT, f"{as_markdown(summary)}\n{exchanges}")


def _write_adapter(
    config: PrompterConfig,
    places: Places,
    learner: Learner,
    claim: TargetClaim,
    figures: dict[str, Any],
) -> None:
    """Write the adapter in peft's form at half precision, with the card that the export reads."""
    folder, policy = places.run / ADAPTER_FOLDER, learner.policy
    save_adapter(policy.model, config.prompter.base, folder)
    reference = reference_adapter(config.prompter, places.data)
    card = PrompterCard(
        base=config.prompter.base,
        template=policy.tokens.template,
        reference_rank=0 if reference is None else stack_on(reference, folder),
        strength=config.objective.strength,
        reward=" + ".join(f"{weight:g} {name}" for name, weight in learner.reward.weights.items()),
        sampling=Sampling(temperature=config.prompter.temperature),
        max_tokens=config.prompter.max_tokens,
        targets=claim,
        metrics=figures,
        doubt=config.prompter.doubt,
    )
    write_record(folder / PROMPTER_CARD, card)
