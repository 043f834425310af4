"""What a trained prompter does with prompts it never saw, measured as `eval` measures systems."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.eval.analysis import summarise
from alignpro_lite.eval.arms import BASELINE, CONSTANT, TWICE
from alignpro_lite.eval.bench import Bench, Response, System
from alignpro_lite.eval.config import ConstantSection
from alignpro_lite.eval.constant import (
    CANDIDATES,
    SHOWN,
    TRIALS,
    ConstantHint,
    HintRace,
    remembered,
)
from alignpro_lite.eval.frontier import FRONTIER, answer_pools
from alignpro_lite.eval.hints import HintCandidate, hint_candidates, read_hints
from alignpro_lite.eval.journal import Journal
from alignpro_lite.eval.judges import judge_accuracies
from alignpro_lite.eval.lineup import Lineup
from alignpro_lite.eval.records import RESULTS, ResultRow
from alignpro_lite.eval.runner import answer_all
from alignpro_lite.eval.summary import Summary
from alignpro_lite.eval.systems import best_places, read_twice, send_fixed
from alignpro_lite.experiment.run_folder import Places
from alignpro_lite.prompter.template import AUGMENT
from alignpro_lite.registry.record import plain
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.prompter.config import PrompterConfig

PLAIN = BASELINE
LEARNED = "learned"
UNTRAINED = "untrained"
REWARD = "reward"
SECOND = "second_reward"
_DATA = "held-out prompts"
_SAMPLED_TOGETHER = 32
"""Rewrites drawn in one batch."""


@dataclass(frozen=True)
class Measuring:
    """What a trained prompter is measured with.

    Attributes:
        config: What was trained, and how it is measured.
        policy: The trained prompter.
        bench: Target and judges; `REWARD` is the first of them.
        held_out: The prompts that are judged, at least two.
        train: Prompts that nothing is judged on.
    """

    config: PrompterConfig
    policy: Policy
    bench: Bench
    held_out: Sequence[str]
    train: Sequence[str]

    @property
    def sampling(self) -> Sampling:
        """How rewrites are drawn for users: the same for every system that draws any."""
        return Sampling(temperature=self.config.prompter.temperature)


def send_drawn(
    bench: Bench,
    prompts: Sequence[str],
    seed: int,
    policy: Policy,
    sampling: Sampling,
    is_trained: bool,
) -> Response:
    """Send a rewrite for every answer; the first of each gives its log-ratio; see `System`.

    `is_trained` chooses between ρ_θ and ρ_sft, and nothing else differs between the two.
    """
    drawn = _drawn(policy, prompts, bench.plan.count, replace(sampling, seed=seed), is_trained)
    trie = policy.pack(prompts, [outputs[0] for outputs in drawn])
    own = policy.log_probs if is_trained else policy.reference_log_probs
    with torch.no_grad():
        ratios = own(trie, sampling.temperature) - policy.reference_log_probs(trie)
    response = bench.answer(prompts, _texts(policy, prompts, drawn), seed)
    return replace(response, log_ratios=[(ratio,) for ratio in ratios.tolist()])


def send_best(
    bench: Bench,
    prompts: Sequence[str],
    seed: int,
    policy: Policy,
    sampling: Sampling,
    samples: int,
) -> Response:
    """Send the one of `samples` rewrites of ρ_sft whose trial answer `REWARD` scores best.

    The answers that count are drawn afresh, so that a lucky trial does not count; see `System`.
    """
    own = replace(sampling, seed=stream_seed(seed, 1))
    tried = _texts(policy, prompts, _drawn(policy, prompts, samples, own, is_trained=False))
    trials = bench.answer(prompts, tried, stream_seed(seed, 2))
    best = best_places(trials.rewards[REWARD])
    sent = [[row[place]] * bench.plan.count for row, place in zip(tried, best, strict=True)]
    return bench.answer(prompts, sent, seed)


def _drawn(
    policy: Policy, prompts: Sequence[str], count: int, sampling: Sampling, is_trained: bool
) -> list[list[tuple[int, ...]]]:
    """`count` rewrites of every prompt as token ids, drawn a few prompts at a time."""
    if is_trained:
        policy.refresh_sampler()
    else:
        policy.reset_sampler()
    together = max(1, _SAMPLED_TOGETHER // count)
    return [
        outputs
        for start in range(0, len(prompts), together)
        for outputs in policy.sample(
            prompts[start : start + together],
            count,
            replace(sampling, seed=stream_seed(sampling.seed, start)),
        )
    ]


def _texts(
    policy: Policy, prompts: Sequence[str], drawn: Sequence[Sequence[Sequence[int]]]
) -> list[list[str]]:
    """What is sent, x'; the prompt itself where a rewrite is empty."""
    tokens = policy.tokens
    return [
        [
            tokens.template.apply(prompt, written) or prompt
            for written in map(tokens.decode, outputs)
        ]
        for prompt, outputs in zip(prompts, drawn, strict=True)
    ]


def measure(
    measuring: Measuring, places: Places, note: Callable[[str], None]
) -> tuple[Summary, list[ResultRow]]:
    """Answer held-out prompts with and without the prompter, and compare.

    Every answer is kept in `RESULTS`, so that a run that is stopped meanwhile resumes there.

    Args:
        measuring: What is measured with what.
        places: Where things are.
        note: Called with each progress message.

    Raises:
        RewardError: An answer failed, or a reward scores none of them.
        InputError: The folder holds results of other weights.
    """
    config, bench, policy = measuring.config, measuring.bench, measuring.policy
    note(f"Measuring on {len(measuring.held_out)} held-out prompts.")
    configuration = plain(config)
    identity = _identity(configuration, policy)
    constant = _constant(measuring, places.run, identity)
    systems = _systems(measuring, constant)
    best_of = _best_of(config)
    lineup = Lineup(
        prompts={_DATA: measuring.held_out},
        systems=dict.fromkeys(systems, (_DATA,)),
        judges=tuple(bench.judges),
        baseline=PLAIN,
        oracle=None,
        seed=config.training.seed,
        controls=(UNTRAINED, CONSTANT, TWICE),
        calls={best_of: config.report.best_of + 1},
        constant=CONSTANT,
    )
    journal = Journal(places.run / RESULTS, identity)
    records = answer_all(lineup, bench, systems.__getitem__, journal, note)
    pools = answer_pools(lineup, bench, records, Journal(places.run / FRONTIER, identity), note)
    judges = {REWARD: config.reward, SECOND: config.second_reward}
    judged = judge_accuracies({name: judges[name] for name in bench.judges}, places.store)
    notes = [constant.note(CONSTANT)]
    return summarise(lineup, records, pools, judged, configuration, notes=notes), records


def _best_of(config: PrompterConfig) -> str:
    return f"best of {config.report.best_of} from {UNTRAINED}"


def _systems(measuring: Measuring, constant: ConstantHint) -> dict[str, System]:
    """Everything that is compared; all that draw rewrites draw them alike."""
    policy, sampling = measuring.policy, measuring.sampling
    drawn = partial(send_drawn, policy=policy, sampling=sampling)
    samples = measuring.config.report.best_of
    return {
        PLAIN: send_fixed,
        LEARNED: partial(drawn, is_trained=True),
        UNTRAINED: partial(drawn, is_trained=False),
        _best_of(measuring.config): partial(
            send_best, policy=policy, sampling=sampling, samples=samples
        ),
        CONSTANT: partial(send_fixed, rewrite=lambda x: AUGMENT.apply(x, constant.text)),
        TWICE: partial(send_fixed, rewrite=read_twice),
    }


def _constant(measuring: Measuring, run: Path, identity: str) -> ConstantHint:
    """Choose the best constant hint on training prompts."""

    def found() -> list[HintCandidate]:
        return hint_candidates(read_hints(None), {LEARNED: _written(measuring)})

    race = HintRace(
        bench=measuring.bench,
        prompts=measuring.train,
        first=ConstantSection().first_round,
        seed=stream_seed(measuring.config.training.seed, 1),
        journal=Journal(run / TRIALS, identity),
    )
    return race.winner(remembered(Journal(run / CANDIDATES, identity), found))


def _written(measuring: Measuring) -> list[str]:
    """Hints of the trained prompter for training prompts; whole rewrites fit no other prompt."""
    policy, seed = measuring.policy, measuring.config.training.seed
    if policy.tokens.template.mode != "augment":
        return []
    prompts, sampling = measuring.train[:SHOWN], replace(measuring.sampling, seed=seed)
    drawn = _drawn(policy, prompts, 1, sampling, is_trained=True)
    return [policy.tokens.decode(outputs[0]) for outputs in drawn]


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
