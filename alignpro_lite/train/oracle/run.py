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
from contextlib import ExitStack
from pathlib import Path

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.experiment.models import load_prompts
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.export.target import export_target
from alignpro_lite.hardware.system import usable_cores
from alignpro_lite.pretrained.adapter import ADAPTER_FOLDER, save_adapter
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.target.rollout import Answer, AnswerOrFailure, AnswerPlan
from alignpro_lite.train.loop import PolicyTrainer
from alignpro_lite.train.oracle.config import OracleConfig
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.rollout import Learner
from alignpro_lite.train.run import describe_prompts, start_run, stay_silent, train_to_the_end

ORACLE = "oracle.gguf"
MERGED = ".merged"
QUANTISATION = "F16"
"""Type of the exported file: much of what was learned is lost on a coarser grid."""
DIRECT = RewriteTemplate(mode="rewrite", system="", request="{prompt}", examples=())
"""Asks for an answer, exactly as the target is asked."""


class Verbatim:
    """Stands in for a target: it answers with what it is told."""

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
        note: Told what people who wait should know, by the main process only.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        AlignProError: Something is missing, damaged, or failed too often.
    """
    accelerator = start_run(places.run, config, config.objective)
    tell = note if accelerator.is_main_process else stay_silent
    if (places.run / ORACLE).is_file():
        tell(f"The run in {places.run} is done; the oracle is {ORACLE} there.")
        return True
    with ExitStack() as stack:
        base = places.store.path("target", config.oracle.base)
        seed = config.training.seed
        policy = Policy(base, DIRECT, config.oracle, str(accelerator.device), seed)
        prompts = load_prompts(config.data, places.data, policy.tokens.request, seed)
        describe_prompts(prompts, tell)
        reward = stack.enter_context(open_reward(config.reward, places.store, usable_cores()))
        plan = AnswerPlan(max_tokens=config.oracle.max_tokens)
        learner = Learner(policy, Verbatim(), reward, plan, prompts.train, accelerator)
        trainer = PolicyTrainer(learner, config.objective, config.training, places.run)
        if not train_to_the_end(trainer, places.run, accelerator.is_main_process, tell):
            return False
        if accelerator.is_main_process:
            save_adapter(policy.model, config.oracle.base, places.run / ADAPTER_FOLDER)
    if accelerator.is_main_process:
        _write_file(base, places.run, tell)
    return True


def _write_file(base: Path, run: Path, tell: Callable[[str], None]) -> None:
    """Merge the adapter and export the result."""
    tell(f"Merging the adapter and writing {ORACLE}.")
    merged = run / MERGED
    shutil.rmtree(merged, ignore_errors=True)  # what a killed run left
    merged.mkdir()
    try:
        merge_adapter(load_torch_model(base), run / ADAPTER_FOLDER).save_folder(merged)
        parity = export_target(merged, run / ORACLE, QUANTISATION)
    finally:
        shutil.rmtree(merged)
    tell(f"Compared with torch: {parity.summary()}.")
