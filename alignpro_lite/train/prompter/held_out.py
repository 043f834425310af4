"""What a trained prompter does with prompts it never saw, measured as `eval` measures systems."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from alignpro_lite.decoding.sampling import stream_seed
from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.bench import Bench, Response, System
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.eval.records import RESULTS, ResultRow
from alignpro_lite.eval.runner import answer_all
from alignpro_lite.eval.summary import Summary
from alignpro_lite.eval.systems import Fixed
from alignpro_lite.registry.record import plain
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import PrompterConfig

PLAIN = "no prompter"
LEARNED = "learned"
UNTRAINED = "untrained"
REWARD = "reward"
SECOND = "second_reward"
_DATA = "held-out prompts"
_SAMPLED_TOGETHER = 32
"""Rewrites drawn in one batch."""


@dataclass(frozen=True)
class PolicyPrompter:
    """A policy in torch as a prompter.

    Attributes:
        policy: ρ_θ with its reference.
        temperature: Divides the logits of the draws.
        is_reference: Whether ρ_sft draws in the place of ρ_θ.
    """

    policy: Policy
    temperature: float
    is_reference: bool

    def draw(self, prompts: Sequence[str], count: int, seed: int) -> list[list[tuple[int, ...]]]:
        """Draw `count` rewrites of every prompt, as token ids, a few prompts at a time."""
        if self.is_reference:
            self.policy.reset_sampler()
        else:
            self.policy.refresh_sampler()
        drawn: list[list[tuple[int, ...]]] = []
        together = max(1, _SAMPLED_TOGETHER // count)
        for start in range(0, len(prompts), together):
            some = prompts[start : start + together]
            drawn.extend(
                self.policy.sample(some, count, stream_seed(seed, start), self.temperature)
            )
        return drawn

    def text(self, prompt: str, output: Sequence[int]) -> str:
        """What is sent, x'; the prompt itself where the prompter wrote nothing."""
        tokens = self.policy.tokens
        written = tokens.decode(output)
        return tokens.template.apply(prompt, written) if written.strip() else prompt

    def log_ratios(self, prompts: Sequence[str], outputs: Sequence[Sequence[int]]) -> list[float]:
        """Log q(x'|x) - log ρ_sft(x'|x) of one rewrite of every prompt, in nats."""
        if self.is_reference:
            return [0.0] * len(prompts)
        trie = self.policy.pack(prompts, outputs)
        with torch.no_grad():
            proposal = self.policy.log_probs(trie, self.temperature)
            ratios: list[float] = (proposal - self.policy.reference_log_probs(trie)).tolist()
        return ratios


@dataclass(frozen=True)
class Rewritten:
    """A system that sends a rewrite of its own for every answer.

    Attributes:
        prompter: Who rewrites.
    """

    prompter: PolicyPrompter

    def respond(self, bench: Bench, prompts: Sequence[str], seed: int) -> Response:
        """Answer prompts; see `System.respond`. The first rewrite of each gives its log-ratio."""
        drawn = self.prompter.draw(prompts, bench.plan.count, seed)
        ratios = self.prompter.log_ratios(prompts, [outputs[0] for outputs in drawn])
        response = bench.answer(prompts, _texts(self.prompter, prompts, drawn), seed)
        return replace(response, log_ratios=[(ratio,) for ratio in ratios])


@dataclass(frozen=True)
class BestRewrite:
    """A system that tries rewrites out and sends the one whose trial answer scores best.

    The answers that count are drawn afresh, so that a lucky trial does not count.

    Attributes:
        prompter: Who rewrites.
        samples: Rewrites of each prompt, each tried with one answer.
        judge: Whose score decides.
    """

    prompter: PolicyPrompter
    samples: int
    judge: str

    def respond(self, bench: Bench, prompts: Sequence[str], seed: int) -> Response:
        """Answer prompts; see `System.respond`."""
        drawn = self.prompter.draw(prompts, self.samples, stream_seed(seed, 1))
        tried = _texts(self.prompter, prompts, drawn)
        trials = bench.answer(prompts, tried, stream_seed(seed, 2))
        best = trials.rewards[self.judge].argmax(axis=1)
        sent = [[row[place]] * bench.plan.count for row, place in zip(tried, best, strict=True)]
        return bench.answer(prompts, sent, seed)


def _texts(
    prompter: PolicyPrompter, prompts: Sequence[str], drawn: Sequence[Sequence[Sequence[int]]]
) -> list[list[str]]:
    return [
        [prompter.text(prompt, output) for output in outputs]
        for prompt, outputs in zip(prompts, drawn, strict=True)
    ]


def measure(
    config: PrompterConfig,
    run: Path,
    bench: Bench,
    policy: Policy,
    prompts: Sequence[str],
    note: Callable[[str], None],
) -> tuple[Summary, list[ResultRow]]:
    """Answer held-out prompts with and without the prompter, and compare.

    Every answer is kept in `RESULTS`, so that a run that is stopped meanwhile resumes there.

    Args:
        config: What was trained, and how it is measured.
        run: The folder of the run.
        bench: Target and judges; `REWARD` is the first of them.
        policy: The trained prompter.
        prompts: The held-out prompts, at least two.
        note: Told what people who wait should know.

    Raises:
        RewardError: An answer failed or has no score.
        InputError: The folder holds results of other weights.
    """
    learned = PolicyPrompter(policy, config.prompter.temperature, is_reference=False)
    untrained = PolicyPrompter(policy, 1.0, is_reference=True)
    samples = config.report.best_of
    systems: dict[str, System] = {
        PLAIN: Fixed({}),
        LEARNED: Rewritten(learned),
        UNTRAINED: Rewritten(untrained),
        f"best of {samples} from {UNTRAINED}": BestRewrite(untrained, samples, REWARD),
    }
    lineup = Lineup(
        prompts={_DATA: prompts},
        systems=dict.fromkeys(systems, (_DATA,)),
        judges=tuple(bench.judges),
        baseline=PLAIN,
        oracle=None,
        seed=config.training.seed,
    )
    configuration = plain(config)
    journal = Journal(run / RESULTS, _identity(configuration, policy))
    note(f"Measuring on {len(prompts)} held-out prompts.")
    records = answer_all(lineup, bench, systems.__getitem__, journal, note)
    return summarise(lineup, records, configuration), records


def _identity(configuration: dict[str, Any], policy: Policy) -> str:
    """Names a configuration and the weights that it was trained to."""
    found = hashlib.sha256(json.dumps(configuration, sort_keys=True).encode())
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad:
            found.update(name.encode())
            found.update(parameter.detach().cpu().numpy().tobytes())
    return found.hexdigest()[:12]


def figures_of(summary: Summary, system: str) -> dict[str, Any]:
    """What was found about one system, as plain data for the card of its adapter."""
    return {
        "rewards": {cell.judge: asdict(cell) for cell in summary.cells if cell.system == system},
        "against_no_prompter": {
            found.judge: asdict(found) for found in summary.versus if found.system == system
        },
        "rewrites": asdict(summary.rewrites[system]),
        "answers": asdict(summary.answers[system]),
    }
