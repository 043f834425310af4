"""The oracle: the target itself, aligned by training on the same reward.

A prompter cannot beat the best target, so its share of the oracle's gain says how much of what
alignment can achieve it achieves. The oracle maximises

    E_x[ E_{y ~ π(·|x)} r*(x, y) - λ KL(π(·|x) ‖ π_F(·|x)) ],

the objective of the prompter with answers y instead of rewrites x'. So it is trained by the same
loop: as a prompter whose request is the bare prompt and whose output is the answer, in front of a
target that repeats what it is told.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import PartialState

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.experiment.prompts import Prompts
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.export.target import export_target
from alignpro_lite.pretrained.adapter import ADAPTER_FOLDER, save_adapter
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.target.rollout import Answer, AnswerOrFailure, AnswerPlan
from alignpro_lite.train.oracle.config import OracleConfig
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.rollout import Learner
from alignpro_lite.train.run import train_policy

ORACLE = "oracle.gguf"
MERGED = ".merged"
QUANTISATION = "F16"
"""Type of the exported file: much of what was learned is lost on a coarser grid."""
DIRECT = RewriteTemplate(mode="rewrite", system="", request="{prompt}", examples=())
"""Asks for an answer, exactly as the target is asked."""


class Verbatim:
    """Stands in for a target: it returns its input."""

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seed: int
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
        return Policy(base, DIRECT, section, device, config.training.seed)

    def finish(learner: Learner, prompts: Prompts) -> None:
        save_adapter(learner.policy.model, section.base, places.run / ADAPTER_FOLDER)

    plan = AnswerPlan(max_tokens=section.max_tokens)
    done = train_policy(config, places, note, ORACLE, load_policy, Verbatim, plan, finish)
    # Only now: the export needs the memory of the reward and of what was trained.
    if done and PartialState().is_main_process and not (places.run / ORACLE).is_file():
        _write_file(places.store.path("target", section.base), places.run, note)
    return done


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
