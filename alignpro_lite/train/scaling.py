"""Rewards of several kinds in one run, each in units of its own spread.

A logit, a check that gives 0 or 1, and the log-odds of a judge share no unit: whichever happens to
spread most would decide alone. So each part is divided by its deviation over the answers to one
prompt, as the target answers raw prompts. Only that spread counts: what all answers to a prompt
have in common cancels in the objective.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import stream_seeds
from alignpro_lite.errors import InputError, TrainingError
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.registry.record import Origin, Record, parse_written, plain, read_json
from alignpro_lite.registry.storage import write_text
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.reward import Reward
from alignpro_lite.reward.rivals import RivalSource, no_rivals
from alignpro_lite.target.rollout import Answer, AnswerPlan, Target

SCALES_FILE = "scales.json"
"""What a run divides its rewards by, so that it does so to its end."""
_CURE = "Restore it, or choose another --output."


class RewardScales(Record):
    """What a run divides its rewards by.

    Attributes:
        spreads: Deviation of each part over the answers to one prompt, in the part's own unit.
        weights: The weight of each part, divided by its spread.
        prompts: How many raw prompts were answered to measure that.
        answers: How many answers each of them got.
    """

    spreads: dict[str, float]
    weights: dict[str, float]
    prompts: int
    answers: int

    def note(self) -> str:
        """What to tell whoever watches the run."""
        units = ", ".join(f"{spread:.3g} of {name}" for name, spread in self.spreads.items())
        return f"The unit of the reward is one spread: {units}."


def measure_scales(
    reward: Reward,
    target: Target,
    plan: AnswerPlan,
    prompts: Sequence[str],
    scopes: dict[str, Collection[str]],
    seed: int,
    rivals: RivalSource = no_rivals,
) -> RewardScales:
    """Let the target answer raw prompts, and measure the spread of every part.

    Args:
        reward: The parts and their weights.
        target: π_F.
        plan: How it is asked; `count` is the answers to each prompt, at least two.
        prompts: x, without duplicates.
        scopes: The prompts that a part can tell answers apart on; all for parts without a scope.
        seed: Of the answers.
        rivals: What a judge of pairs compares the answers with.

    Raises:
        TrainingError: A part gives all answers to a prompt the same score.
        AlignProError: The target or the reward failed altogether.
    """
    conversations = [[Message("user", prompt)] for prompt in prompts]
    asked = target.answers(conversations, plan, stream_seeds(seed, len(prompts)))
    given = [
        (prompt, answer.text)
        for prompt, answers in zip(prompts, asked, strict=True)
        for answer in answers
        if isinstance(answer, Answer)
    ]
    owners = [prompt for prompt, _ in given]
    scores = reward.score(
        [
            Exchange(prompt, answer, own)
            for (prompt, answer), own in zip(given, rivals(owners), strict=True)
        ]
    )
    spreads = {
        name: _spread(name, owners, values, scopes.get(name, prompts))
        for name, values in scores.parts.items()
    }
    weights = {name: weight / spreads[name] for name, weight in reward.weights.items()}
    return RewardScales(spreads, weights, len(prompts), plan.count)


def remembered_scales(run: Path, measure: Callable[[], RewardScales]) -> RewardScales:
    """The scales of a run, measured when it starts and kept.

    Args:
        run: The folder of the run.
        measure: Measures them, the first time.

    Raises:
        InputError: The file that keeps them cannot be read.
    """
    file = run / SCALES_FILE
    if not file.exists():
        write_text(file, json.dumps(plain(measure()), indent=2) + "\n")
    origin = Origin(file, InputError, _CURE)
    return parse_written(RewardScales, read_json(origin, "run"), origin)


def _spread(name: str, owners: Sequence[str], values: FloatArray, scope: Collection[str]) -> float:
    """Root of the mean variance over the answers to a prompt, of those that have two scores."""
    scored: dict[str, list[float]] = {prompt: [] for prompt in scope}
    for owner, value in zip(owners, values, strict=True):
        if owner in scored and math.isfinite(value):
            scored[owner].append(float(value))
    variances = [np.var(found, ddof=1) for found in scored.values() if len(found) > 1]
    spread = math.sqrt(np.mean(variances)) if variances else 0.0
    if spread == 0:
        raise TrainingError(
            f"The part {name!r} of the reward needs a spread over the answers to a prompt, found "
            f"none on {len(variances)} prompts with two scores.",
            'Raise scaling.prompts or scaling.answers, remove it, or set scaling.by = "nothing".',
        )
    return spread
