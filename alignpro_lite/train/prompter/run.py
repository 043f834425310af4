"""One prompter run from its configuration to its report, in a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.report.markdown import as_markdown, exchanges_as_markdown
from alignpro_lite.eval.summary import write_summary
from alignpro_lite.experiment.models import load_prompts, open_target
from alignpro_lite.experiment.prompts import Prompts
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.pretrained.adapter import ADAPTER_FOLDER, save_adapter
from alignpro_lite.prompter.card import PROMPTER_CARD, PrompterCard
from alignpro_lite.prompter.template import TEMPLATES
from alignpro_lite.registry.record import write_record
from alignpro_lite.registry.storage import write_text
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.train.loop import PolicyTrainer
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import PrompterConfig
from alignpro_lite.train.prompter.held_out import LEARNED, REWARD, SECOND, figures_of, measure
from alignpro_lite.train.rollout import Learner
from alignpro_lite.train.run import describe_prompts, start_run, stay_silent, train_to_the_end

REPORT = "report.md"
"""Written last: it marks a run that is done."""


def train_prompter(config: PrompterConfig, places: Places, note: Callable[[str], None]) -> bool:
    """Start a run or resume it, and write its adapter and report when it is done.

    Args:
        config: What to train.
        places: Where things are.
        note: Told what people who wait should know, by the main process only.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        AlignProError: Something is missing, damaged, or failed too often.
    """
    accelerator = start_run(places.run, config, config.objective)
    tell = note if accelerator.is_main_process else stay_silent
    if (places.run / REPORT).is_file():
        tell(f"The run in {places.run} is done; its report is report.md there.")
        return True
    with ExitStack() as stack:
        base = places.store.path("prompter", config.prompter.base)
        template, seed = TEMPLATES[config.prompter.mode], config.training.seed
        policy = Policy(base, template, config.prompter, str(accelerator.device), seed)
        prompts = load_prompts(config.data, places.data, policy.tokens.request, seed)
        describe_prompts(prompts, tell)
        target = stack.enter_context(closing(open_target(config.target, places.store)))
        reward = stack.enter_context(open_reward(config.reward, places.store, usable_cores()))
        learner = Learner(policy, target, reward, config.answers, prompts.train, accelerator)
        trainer = PolicyTrainer(learner, config.objective, config.training, places.run)
        if not train_to_the_end(trainer, places.run, accelerator.is_main_process, tell):
            return False
        if accelerator.is_main_process:
            _finish(config, places, learner, prompts, tell)
    return True


def _finish(
    config: PrompterConfig,
    places: Places,
    learner: Learner,
    prompts: Prompts,
    tell: Callable[[str], None],
) -> None:
    """Write the adapter, measure it on held-out prompts, and write the report."""
    policy, run = learner.policy, places.run
    # First without figures: a failure while measuring must not cost the adapter.
    _write_adapter(config, run, policy, {})
    with ExitStack() as stack:
        judges = {REWARD: learner.reward}
        if config.second_reward:
            second = open_reward(config.second_reward, places.store, usable_cores())
            judges[SECOND] = stack.enter_context(second)
        bench = Bench(learner.target, judges, learner.plan.with_count(config.report.answers))
        held_out = prompts.held_out[: config.report.prompts]
        summary, records = measure(config, run, bench, policy, held_out, tell)
    write_summary(run, summary)
    _write_adapter(config, run, policy, figures_of(summary, LEARNED))
    exchanges = exchanges_as_markdown(summary, records, LEARNED)
    # Last: the report marks a run that is done.
    write_text(run / REPORT, f"{as_markdown(summary)}\n{exchanges}")


def _write_adapter(
    config: PrompterConfig, run: Path, policy: Policy, figures: dict[str, Any]
) -> None:
    """Write the adapter in peft's form at half precision, with the card that the export reads."""
    folder = run / ADAPTER_FOLDER
    save_adapter(policy.model, config.prompter.base, folder)
    card = PrompterCard(
        base=config.prompter.base,
        template=policy.tokens.template,
        strength=config.objective.strength,
        reward=" + ".join(
            f"{weight:g} {name}"
            for section in config.reward
            for name, weight in section.weights.items()
        ),
        sampling=Sampling(temperature=config.prompter.temperature),
        max_tokens=config.prompter.max_tokens,
        metrics=figures,
    )
    write_record(folder / PROMPTER_CARD, card)
