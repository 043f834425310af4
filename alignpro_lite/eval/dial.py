"""The λ dial: how much reward a KL to ρ_sft buys, as λ moves and as the adapter is turned up.

Sampling: the same candidates and trial answers are weighed anew for every λ. Half of the answers
choose, the other half say what the choice is worth, then the halves change places; so luck that
the draw followed does not count as reward. Letting the same answers choose and judge flatters: with
it, the curve is an upper limit of what ρ* itself can reach with these candidates.

Adapter: its gate multiplies what training added, from ρ_sft at 0 to ρ_θ at 1 and beyond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.eval.arms import Bench
from alignpro_lite.eval.config import DialSection
from alignpro_lite.eval.opening import Evaluation
from alignpro_lite.eval.summary import DialCurve, DialPoint
from alignpro_lite.measure.statistics import bootstrap_mean
from alignpro_lite.prompter.prompter import OnnxPrompter
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.rho_star import Candidates, diagnose, log_weights, mean_rewards, shares
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.rewriting.trials import Ask, Trials, rewards_of

FILE = "dial.jsonl"
_GATE_SEED = 1
_CANDIDATE_SEED = 2

Measured = dict[str, Any]


@dataclass(frozen=True)
class Weighable:
    """The candidates of one prompt and what their trial answers scored.

    Attributes:
        reference: log ρ_sft of each candidate, in nats.
        proposal: log q of each, in nats.
        rewards: Of the trial answers, a row a candidate.
    """

    reference: tuple[float, ...]
    proposal: tuple[float, ...]
    rewards: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Turned:
    """What one prompt got at one gate.

    Attributes:
        kl: Mean log-ratio of its rewrites to ρ_sft, in nats; 0 where none may be used.
        reward: Mean reward of its answers.
    """

    kl: float
    reward: float


class DialRun:
    """Measures a dial prompt by prompt, and goes on where it stopped."""

    def __init__(self, evaluation: Evaluation, section: DialSection) -> None:
        self._evaluation = evaluation
        self._section = section
        self._loaded = evaluation.loaded
        self._plan = evaluation.config.answers

    def curves(self, on_step: Callable[[int, int], None]) -> tuple[DialCurve, ...]:
        """Measure what is missing and draw the curves.

        Args:
            on_step: Told how many of how many measurements are done.

        Raises:
            AlignProError: A model is missing or failed.
        """
        section, journal = self._section, self._evaluation.journal(FILE)
        prompts = self._evaluation.mixed(section.prompts)
        known: dict[str, Measured] = {row["key"]: row["value"] for row in journal.read()}
        total = len(prompts) * (1 + len(section.gates))

        def measure(key: str, how: Callable[[], Measured]) -> None:
            if key not in known:
                known[key] = how()
                journal.append([{"key": key, "value": known[key]}])
            on_step(len(known), total)

        for place, prompt in enumerate(prompts):
            measure(f"candidates {place}", partial(self._weighed, place, prompt))
        for gate in section.gates:
            with self._loaded.gated(section.bundle, gate) as prompter:
                for place, prompt in enumerate(prompts):
                    measure(f"gate {gate} {place}", partial(self._turned, place, prompt, prompter))
        numbers = range(len(prompts))
        weighable = [Weighable(**known[f"candidates {n}"]) for n in numbers]
        turned = {
            gate: [Turned(**known[f"gate {gate} {n}"]) for n in numbers] for gate in section.gates
        }
        return (*sampling_curves(weighable, section.strengths), gate_curve(turned))

    def _weighed(self, place: int, prompt: str) -> Measured:
        """Draw candidates of ρ_θ and try each different one."""
        section, plan = self._section, self._plan
        target = self._loaded.require_llama("The dial")
        seed = stream_seed(stream_seed(self._evaluation.config.seed, _CANDIDATE_SEED), place)
        request = Request(
            max_tokens=plan.max_tokens,
            sampling=plan.seeded(seed),
            rho_star=RhoStar(answers=section.trials, trial_tokens=plan.max_tokens),
        )
        prompter = self._loaded.prompter(section.bundle)
        source = CandidateSource(prompter, protect(prompt), request, Sampling(), Cancellation())
        found = source.candidates(section.samples, weighed=True)
        owners = {one.rewrite.text: one.number + 1 for one in reversed(found)}
        trials = Trials(target, self._loaded.reward, source.prompt, request, Cancellation())
        every = [Ask(text, owner, section.trials) for text, owner in owners.items()]
        asks = [ask for ask in every if trials.fits(ask)]
        answered = trials.answers(asks) if asks else []
        answers = {ask.sent: found for ask, found in zip(asks, answered, strict=True)}
        rewards = [
            tuple(map(float, rewards_of(answers.get(one.rewrite.text, [])))) for one in found
        ]
        usable = [place for place, row in enumerate(rewards) if len(row) == section.trials]
        return asdict(
            Weighable(
                tuple(found[place].log_reference for place in usable),
                tuple(found[place].rewrite.log_proposal for place in usable),
                tuple(rewards[place] for place in usable),
            )
        )

    def _turned(self, place: int, prompt: str, prompter: OnnxPrompter) -> Measured:
        """Rewrite and answer with the adapter turned to where this prompter has it."""
        plan = self._plan
        seed = stream_seed(stream_seed(self._evaluation.config.seed, _GATE_SEED), place)
        request = Request().with_seed(seed)
        source = CandidateSource(prompter, protect(prompt), request, Sampling(), Cancellation())
        found = source.candidates(plan.count, weighed=True)
        ratios = [one.rewrite.log_proposal - one.log_reference for one in found]
        texts = {one.number: one.rewrite.text for one in found}
        sent = [texts.get(place, source.prompt) for place in range(plan.count)]
        bench = Bench(self._loaded.target, {"reward": self._loaded.reward}, [prompt], plan, seed)
        arm = bench.arm("gate", [sent], seed)
        kl = float(np.mean(ratios)) if ratios else 0.0
        return asdict(Turned(kl, float(arm.rewards["reward"].mean())))


def sampling_curves(
    prompts: Sequence[Weighable], strengths: Sequence[float]
) -> tuple[DialCurve, ...]:
    """Reward against KL of draws from ρ* at every λ: what is reached, and an upper limit.

    Args:
        prompts: Candidates and their rewards; prompts with fewer than two are left out.
        strengths: λ.

    Returns:
        Both curves; none where fewer than two prompts have candidates.
    """
    usable = [one for one in prompts if len(one.rewards) >= 2]
    if len(usable) < 2:
        return ()
    return (
        DialCurve("sampling ρ*", tuple(_sampled(usable, one, True) for one in strengths)),
        DialCurve("upper limit", tuple(_sampled(usable, one, False) for one in strengths)),
    )


def _sampled(prompts: Sequence[Weighable], strength: float, is_fair: bool) -> DialPoint:
    """One λ: with the halves of the answers apart, or all of them choosing and judging."""
    both = np.array([_draw_worth(one, strength, is_fair) for one in prompts])
    return DialPoint(f"λ {strength:g}", float(both[:, 0].mean()), bootstrap_mean(both[:, 1], 0))


def _draw_worth(one: Weighable, strength: float, is_fair: bool) -> tuple[float, float]:
    """KL(ρ*‖ρ_sft) and E_ρ*[R] of one prompt, both by self-normalised weights.

    The KL is E_ρ*[R]/λ - log Z (Lemma 5.1) with that same estimate of E_ρ*[R]: where answers judge
    what they chose themselves, their luck would count as distance too. log Z is taken relative to
    the weights that no reward at all would give, so that it is 0 for constant rewards of 0.
    """
    rewards = np.array(one.rewards)
    half = rewards.shape[1] // 2
    parts = [(rewards[:, :half], rewards[:, half:]), (rewards[:, half:], rewards[:, :half])]
    found = []
    for choosing, judging in parts if is_fair else [(rewards, rewards)]:
        share = shares(log_weights(_candidates(one, choosing), strength))
        found.append(float(share @ judging.mean(axis=1)))
    reward = float(np.mean(found))
    log_z, nothing = (
        diagnose(_candidates(one, scores), strength).log_z
        for scores in (rewards, np.zeros_like(rewards))
    )
    return max(0.0, reward / strength - (log_z - nothing)), reward


def _candidates(one: Weighable, rewards: NDArray[np.float64]) -> Candidates:
    return Candidates(np.array(one.reference), np.array(one.proposal), mean_rewards(list(rewards)))


def gate_curve(turned: Mapping[float, Sequence[Turned]]) -> DialCurve:
    """Reward against KL of the learned prompter at every gate."""
    points = [
        DialPoint(
            f"gate {gate:g}",
            float(np.mean([one.kl for one in rows])),
            bootstrap_mean(np.array([one.reward for one in rows]), 0),
        )
        for gate, rows in turned.items()
    ]
    return DialCurve("learned ρ_θ", tuple(points))
