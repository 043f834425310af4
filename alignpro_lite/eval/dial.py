"""The λ dial: how much reward a KL to ρ_sft buys, as λ moves and as the adapter is turned up.

Sampling: the same candidates and trial answers are weighed again for every λ. Half of the answers
choose, the other half judge the choice, then the halves swap roles; so the luck that a draw follows
does not count as reward. The KL is that of these draws. It is not KL(ρ*‖ρ_sft), which a handful of
candidates cannot show where it is above the log of their number, but an upper limit of
KL(draw‖ρ_sft) for any number of candidates and any noise (`measure.draws.draw_kl`).

Adapter: its gate multiplies what training added, from ρ_sft at 0 to ρ_θ at 1 and beyond. Rewrites
are drawn as users get them, as in a system of kind prompter. The KL is the mean log-ratio of the
rewrites that may be used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.config import DialSection
from alignpro_lite.eval.evaluation import Evaluation
from alignpro_lite.eval.summary import DialCurve, DialPoint
from alignpro_lite.eval.systems import send_rewrites
from alignpro_lite.measure.draws import draw_kl, draw_shares
from alignpro_lite.measure.statistics import FloatArray, bootstrap_mean
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.posterior import posterior, tally
from alignpro_lite.rewriting.request import Request, RhoStar
from alignpro_lite.rewriting.rho_star import WeighedCandidates, log_weights
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.rewriting.trials import Ask, Trials, rewards_of

DIAL = "dial.jsonl"
_GATE_SEED = 1
_CANDIDATE_SEED = 2

Measured = Mapping[str, Any]
"""One measurement on one prompt, as a row of `DIAL` holds it. At a gate: `kl` in nats, None where
no rewrite may be used, and the mean `reward`, None where no answer has a score. Of candidates: log
ρ_sft of each as `reference` and log q as `proposal`, in nats, and as `rewards` a row of those of
its trial answers."""


def dial_curves(evaluation: Evaluation, section: DialSection) -> tuple[DialCurve, ...]:
    """Measure a dial prompt by prompt, resuming where an earlier run stopped, and draw its curves.

    Raises:
        AlignProError: A model is missing or failed.
    """
    journal, loaded = evaluation.journal(DIAL), evaluation.loaded
    prompts = evaluation.mixed(section.prompts)
    known: dict[str, Measured] = {row["key"]: row["value"] for row in journal.read()}
    total = len(prompts) * (1 + len(section.gates))
    with tqdm(total=total, initial=len(known), unit="prompt") as bar:

        def measure(key: str, how: Callable[[], Measured]) -> None:
            if key not in known:
                known[key] = how()
                journal.append([{"key": key, "value": known[key]}])
                bar.update()

        for place, prompt in enumerate(prompts):
            how = partial(_candidates, evaluation, section, place, prompt)
            measure(f"candidates {place}", how)
        for gate in section.gates:
            with loaded.gated(section.bundle, gate) as prompter:
                for place, prompt in enumerate(prompts):
                    how = partial(_gated, evaluation, place, prompt, prompter)
                    measure(f"gate {gate} {place}", how)
    numbers = range(len(prompts))
    candidates = [known[f"candidates {n}"] for n in numbers]
    gated = {gate: [known[f"gate {gate} {n}"] for n in numbers] for gate in section.gates}
    return (*sampling_curves(candidates, section.strengths), _gate_curve(gated))


def _candidates(evaluation: Evaluation, section: DialSection, place: int, prompt: str) -> Measured:
    """Draw candidates from ρ_θ and try each different one."""
    loaded, plan = evaluation.loaded, evaluation.config.answers
    target = loaded.require_llama("The dial")
    seed = stream_seed(stream_seed(evaluation.config.seed, _CANDIDATE_SEED), place)
    request = Request(
        max_tokens=plan.max_tokens,
        sampling=plan.seeded(seed),
        rho_star=RhoStar(answers=section.trials, trial_tokens=plan.max_tokens),
        thinking=plan.switch,
    )
    prompter = loaded.prompter(section.bundle)
    source = CandidateSource(prompter, protect(prompt), request, Sampling(), Cancellation())
    found = source.candidates(section.samples, weighed=True)
    owners = {candidate.rewrite.text: candidate.number + 1 for candidate in reversed(found)}
    trials = Trials(target, loaded.reward, source.prompt, request, Cancellation())
    every = [Ask(text, owner, section.trials) for text, owner in owners.items()]
    asks = [ask for ask in every if trials.fits(ask)]
    answered = trials.answers(asks) if asks else []
    answers = {ask.sent: given for ask, given in zip(asks, answered, strict=True)}
    rewards = [
        list(map(float, rewards_of(answers.get(candidate.rewrite.text, [])))) for candidate in found
    ]
    usable = [n for n, row in enumerate(rewards) if len(row) == section.trials]
    return {
        "reference": [found[n].log_reference for n in usable],
        "proposal": [found[n].rewrite.log_proposal for n in usable],
        "rewards": [rewards[n] for n in usable],
    }


def _gated(evaluation: Evaluation, place: int, prompt: str, prompter: Prompter) -> Measured:
    """Measure one prompt at the gate that a prompter was loaded with."""
    loaded, config = evaluation.loaded, evaluation.config
    seed = stream_seed(stream_seed(config.seed, _GATE_SEED), place)
    bench = Bench(loaded.target, {"reward": loaded.reward}, config.answers, loaded.rivals)
    sampling = prompter.profile.sampling
    response = send_rewrites(bench, [prompt], seed, prompter, sampling)
    (ratios,) = response.log_ratios
    kl = float(np.mean(ratios)) if ratios else None
    scores = response.rewards["reward"]
    known = scores[~np.isnan(scores)]
    return {"kl": kl, "reward": float(known.mean()) if known.size else None}


def sampling_curves(
    prompts: Sequence[Measured], strengths: Sequence[float]
) -> tuple[DialCurve, ...]:
    """Reward of draws at every λ, against an upper limit of their KL to ρ_sft.

    Args:
        prompts: Candidates of each; prompts with fewer than two are left out.
        strengths: λ.

    Returns:
        One curve; none where fewer than two prompts have candidates.
    """
    usable = [prompt for prompt in prompts if len(prompt["rewards"]) >= 2]
    if len(usable) < 2:
        return ()
    return (DialCurve("draws at λ", tuple(_sampled(usable, strength) for strength in strengths)),)


def _sampled(prompts: Sequence[Measured], strength: float) -> DialPoint:
    """One λ."""
    both = np.array([_drawn(prompt, strength) for prompt in prompts])
    return DialPoint(f"λ {strength:g}", float(both[:, 0].mean()), bootstrap_mean(both[:, 1], 0))


def _drawn(prompt: Measured, strength: float) -> tuple[float, float]:
    """The limit of the KL and the mean reward of draws by half of the answers, for one prompt."""
    rewards = np.array(prompt["rewards"])
    log_ratios = np.array(prompt["proposal"]) - np.array(prompt["reference"])
    half = rewards.shape[1] // 2
    halves = rewards[:, :half], rewards[:, half:]
    found = []
    for choosing, judging in (halves, halves[::-1]):
        law = draw_shares(log_weights(_scored(prompt, choosing), strength))
        found.append((draw_kl(law, log_ratios), float(law @ judging.mean(axis=1))))
    kl, reward = np.mean(found, axis=0)
    return float(kl), float(reward)


def _scored(prompt: Measured, rewards: FloatArray) -> WeighedCandidates:
    reference, proposal = np.array(prompt["reference"]), np.array(prompt["proposal"])
    return WeighedCandidates(
        reference, proposal, np.arange(len(rewards)), posterior(tally(list(rewards)))
    )


def _gate_curve(gated: Mapping[float, Sequence[Measured]]) -> DialCurve:
    """Reward against KL of the learned prompter at every gate."""
    points = []
    for gate, rows in gated.items():
        ratios = [row["kl"] for row in rows if row["kl"] is not None]
        rewards = [row["reward"] for row in rows if row["reward"] is not None]
        if ratios and len(rewards) >= 2:
            reward = bootstrap_mean(np.array(rewards), 0)
            points.append(DialPoint(f"gate {gate:g}", float(np.mean(ratios)), reward))
    return DialCurve("learned ρ_θ", tuple(points))
