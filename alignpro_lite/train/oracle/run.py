"""The oracle: the target itself, aligned by training on the same reward.

A prompter cannot beat the best target, so its share of the oracle's gain says how much of what
alignment can achieve it achieves. The oracle maximises

    E_x[ E_{y ~ π(·|x)} r*(x, y) - λ KL(π(·|x) ‖ π_F(·|x)) ],

the objective of the prompter with answers y instead of rewrites x', where π draws answers as they
are judged: at the temperature, and cut at the length, of [answers]. So it is trained by the same
loop: as a prompter whose request is the bare prompt and whose output is the answer, in front of a
target that repeats what it is told. It goes on until the reward on prompts set apart has stopped
rising, and keeps the best weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import PartialState

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.eval.oracle import ORACLE_CARD, OracleCard
from alignpro_lite.experiment.prompts import Prompts
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.export.target import export_target
from alignpro_lite.pretrained.adapter import ADAPTER_FOLDER, save_adapter
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.registry.record import write_record
from alignpro_lite.target.rollout import Answer, AnswerOrFailure, AnswerPlan
from alignpro_lite.train.loop import PolicyTrainer
from alignpro_lite.train.oracle.config import OracleConfig
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.rollout import Learner
from alignpro_lite.train.run import PolicyTask, train_policy

ORACLE = "oracle.gguf"
MERGED = ".merged"
QUANTISATION = "F16"
"""Type of the exported file: much of what was learned is lost on a coarser grid."""
DIRECT = RewriteTemplate(mode="rewrite", system="", request="{prompt}", examples=())
"""Asks for an answer, exactly as the target is asked."""


class Verbatim:
    """Stands in for a target: it returns its input."""

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seeds: Sequence[int]
    ) -> list[list[AnswerOrFailure]]:
        """Return the last message of each conversation; see `Target.answers`."""
        return [[Answer(said[-1].content, None, "stop")] * plan.count for said in conversations]

    def close(self) -> None:
        """Nothing is held."""


def train_oracle(config: OracleConfig, places: Places, note: Callable[[str], None]) -> bool:
    """Start a run or resume it, and write its adapter and GGUF file when it is done.

    Args:
        config: What to train.
        places: Where things are.
        note: Called with each progress message, by the main process only.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        AlignProError: Something is missing, damaged, or failed too often.
    """
    section = config.oracle

    def load_policy(device: str) -> Policy:
        base = places.store.path("target", section.base)
        longest, seed = config.answers.max_tokens, config.training.seed
        return Policy(base, DIRECT, section, longest, device, seed)

    def finish(trainer: PolicyTrainer, learner: Learner, prompts: Prompts) -> None:
        save_adapter(learner.policy.model, section.base, places.run / ADAPTER_FOLDER)
        card = _card(config, trainer)
        write_record(places.run / ORACLE_CARD, card)
        note(f"The oracle was {card.summary()}.")

    task = PolicyTask(
        result=ORACLE,
        load_policy=load_policy,
        open_targets=(Verbatim,),
        plan=AnswerPlan(max_tokens=config.answers.max_tokens),
        sampling=config.answers.seeded(config.training.seed),
        stopping=config.stopping,
        watched=config.answers.count,
        scaling=None,
        finish=finish,
    )
    done = train_policy(config, places, note, task)
    # Only now: the export needs the memory of the reward and of what was trained.
    if done and PartialState().is_main_process and not (places.run / ORACLE).is_file():
        _write_file(places.store.path("target", section.base), places.run, note)
    return done


def _card(config: OracleConfig, trainer: PolicyTrainer) -> OracleCard:
    """What an evaluation has to know about how the oracle was trained."""
    history, best = trainer.plateau.history, trainer.plateau.best
    assert best is not None, "measured before the first step"
    return OracleCard(
        answers=config.answers,
        strength=config.objective.strength,
        steps=trainer.step,
        best_step=best.step,
        prompts=config.stopping.prompts,
        first_reward=history[0].reward,
        best_reward=best.reward,
        is_plateau=trainer.plateau.is_reached,
    )


def _write_file(base: Path, run: Path, note: Callable[[str], None]) -> None:
    """Merge the adapter and export the result."""
    note(f"Merging the adapter and writing {ORACLE}.")
    merged = run / MERGED
    shutil.rmtree(merged, ignore_errors=True)  # what a killed run left
    merged.mkdir()
    try:
        merge_adapter(load_torch_model(base), run / ADAPTER_FOLDER).save_folder(merged)
        parity = export_target(merged, run / ORACLE, QUANTISATION)
    finally:
        shutil.rmtree(merged)
    note(f"Compared with torch: {parity.summary()}.")
