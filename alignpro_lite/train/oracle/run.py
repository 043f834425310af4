"""The oracle: the target itself, aligned by training on the same reward.

A prompter cannot do better than the best target could, so the share of the oracle's gain says how
much of what alignment can bring a prompter brings. The oracle maximises

    E_x[ E_{y ~ π(·|x)} r*(x, y) - λ KL(π(·|x) ‖ π_F(·|x)) ],

the objective of the prompter with answers y in the place of rewrites x'. So it is trained by the
same loop: a prompter whose request is the bare prompt, whose output is the answer, and behind which
stands a target that says what it is told.
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
from alignpro_lite.pretrained.adapter import save_adapter
from alignpro_lite.pretrained.torch_model import load_torch_model, merge_adapter
from alignpro_lite.prompter.template import RewriteTemplate
from alignpro_lite.reward.loading import open_reward
from alignpro_lite.target.rollout import Answer, AnswerOrFailure, AnswerPlan
from alignpro_lite.train.loop import Learner, PrompterTrainer
from alignpro_lite.train.oracle_config import OracleConfig
from alignpro_lite.train.policy import open_policy
from alignpro_lite.train.run import silent, start_run, tell_of_prompts, train_to_the_end

ADAPTER = "adapter"
ORACLE = "oracle.gguf"
MERGED = ".merged"
QUANTISATION = "F16"
"""Of the exported file: on a coarser grid much of what was learned is less than half a step."""
DIRECT = RewriteTemplate(mode="rewrite", system="", request="{prompt}", examples=())
"""Asks for an answer, as the target is asked."""


class Verbatim:
    """The identity in the place of a target: what it is told is its answer."""

    def answers(
        self, conversations: Sequence[Sequence[Message]], plan: AnswerPlan, seed: int
    ) -> list[list[AnswerOrFailure]]:
        """Give back the last message of each conversation; see `Target.answers`."""
        return [[Answer(said[-1].content, None, "stop")] * plan.count for said in conversations]

    def close(self) -> None:
        """Nothing is held."""


def train_oracle(config: OracleConfig, places: Places, note: Callable[[str], None]) -> bool:
    """Begin a run or take it up, and write its adapter and GGUF file when it is done.

    Args:
        config: What to do.
        places: Where.
        note: Told what people who wait should know; main process only.

    Returns:
        Whether the run is done; False after Ctrl-C, with everything saved.

    Raises:
        AlignProError: Something is missing, damaged, or failed too often.
    """
    accelerator = start_run(places.run, config, config.objective)
    tell = note if accelerator.is_main_process else silent
    if (places.run / ORACLE).is_file():
        tell(f"The run in {places.run} is done; the oracle is {ORACLE} there.")
        return True
    with ExitStack() as stack:
        base = places.store.path("target", config.oracle.base)
        seed = config.training.seed
        policy = open_policy(config.oracle, base, DIRECT, str(accelerator.device), seed)
        prompts = load_prompts(config.data, places.data, policy.tokens.request, seed)
        tell_of_prompts(prompts, tell)
        reward = stack.enter_context(open_reward(config.reward, places.store, usable_cores()))
        plan = AnswerPlan(max_tokens=config.oracle.max_tokens)
        learner = Learner(policy, Verbatim(), reward, plan, prompts.train, accelerator)
        trainer = PrompterTrainer(learner, config.objective, config.training, places.run)
        if not train_to_the_end(trainer, places.run, accelerator.is_main_process, tell):
            return False
        if accelerator.is_main_process:
            save_adapter(policy.model, config.oracle.base, places.run / ADAPTER)
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
        merge_adapter(load_torch_model(base), run / ADAPTER).save_folder(merged)
        made = export_target(merged, run / ORACLE, QUANTISATION)
    finally:
        shutil.rmtree(merged)
    tell(f"Compared with torch: {made.parity.summary()}.")
