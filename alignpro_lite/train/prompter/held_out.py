"""What a trained prompter does with prompts it never saw, measured as `eval` measures systems."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
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
from alignpro_lite.eval.systems import send_fixed
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


def send_learned(
    bench: Bench, prompts: Sequence[str], seed: int, policy: Policy, temperature: float
) -> Response:
    """Send a rewrite of ρ_θ for every answer; the first of each gives its log-ratio."""
    policy.refresh_sampler()
    drawn = _drawn(policy, prompts, bench.plan.count, seed, temperature)
    trie = policy.pack(prompts, [outputs[0] for outputs in drawn])
    with torch.no_grad():
        ratios = policy.log_probs(trie, temperature) - policy.reference_log_probs(trie)
    response = bench.answer(prompts, _texts(policy, prompts, drawn), seed)
    return replace(response, log_ratios=[(ratio,) for ratio in ratios.tolist()])


def send_untrained(bench: Bench, prompts: Sequence[str], seed: int, policy: Policy) -> Response:
    """Send a rewrite of ρ_sft for every answer; see `System`."""
    policy.reset_sampler()
    drawn = _drawn(policy, prompts, bench.plan.count, seed, 1.0)
    response = bench.answer(prompts, _texts(policy, prompts, drawn), seed)
    return replace(response, log_ratios=[(0.0,)] * len(prompts))


def send_best(
    bench: Bench, prompts: Sequence[str], seed: int, policy: Policy, samples: int
) -> Response:
    """Send the one of `samples` rewrites of ρ_sft whose trial answer `REWARD` scores best.

    The answers that count are drawn afresh, so that a lucky trial does not count; see `System`.
    """
    policy.reset_sampler()
    tried = _texts(policy, prompts, _drawn(policy, prompts, samples, stream_seed(seed, 1), 1.0))
    trials = bench.answer(prompts, tried, stream_seed(seed, 2))
    best = trials.rewards[REWARD].argmax(axis=1)
    sent = [[row[place]] * bench.plan.count for row, place in zip(tried, best, strict=True)]
    return bench.answer(prompts, sent, seed)


def _drawn(
    policy: Policy, prompts: Sequence[str], count: int, seed: int, temperature: float
) -> list[list[tuple[int, ...]]]:
    """`count` rewrites of every prompt as token ids, drawn a few prompts at a time."""
    together = max(1, _SAMPLED_TOGETHER // count)
    return [
        outputs
        for start in range(0, len(prompts), together)
        for outputs in policy.sample(
            prompts[start : start + together], count, stream_seed(seed, start), temperature
        )
    ]


def _texts(
    policy: Policy, prompts: Sequence[str], drawn: Sequence[Sequence[Sequence[int]]]
) -> list[list[str]]:
    """What is sent, x'; the prompt itself where the prompter wrote nothing."""
    tokens = policy.tokens
    return [
        [
            tokens.template.apply(prompt, written) if written.strip() else prompt
            for written in map(tokens.decode, outputs)
        ]
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
        note: Called with each progress message.

    Raises:
        RewardError: An answer failed or has no score.
        InputError: The folder holds results of other weights.
    """
    samples = config.report.best_of
    temperature = config.prompter.temperature
    systems: dict[str, System] = {
        PLAIN: partial(send_fixed, rewrites={}),
        LEARNED: partial(send_learned, policy=policy, temperature=temperature),
        UNTRAINED: partial(send_untrained, policy=policy),
        f"best of {samples} from {UNTRAINED}": partial(send_best, policy=policy, samples=samples),
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
