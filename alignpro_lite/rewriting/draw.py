"""Draws one rewrite for one prompt, from ρ_θ or from ρ*, and decides whether it is used.

    prompter -> N candidates -> refusals -> trial answers -> rewards -> one candidate -> guard

- Without a reward, one sample: the rewrite that ρ_θ draws.
- Without a reward, several samples: the one with the highest implicit reward λ log(ρ_θ/ρ_sft)
  (Lemma 5.1 read backwards). The target is not asked.
- With a reward: Metropolis-Hastings over the candidates, see `rho_star`.

Candidate i, its log-probabilities and the random streams of its answers depend on the seed and on i
alone, never on N.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import InputError
from alignpro_lite.prompter.prompter import OnnxPrompter, Rewrite
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.candidates import Candidate, CandidateSource
from alignpro_lite.rewriting.certificate import Certificate, estimate_reward, word_changes
from alignpro_lite.rewriting.guard import gain
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice
from alignpro_lite.rewriting.rho_star import (
    LARGEST_NOISE,
    Candidates,
    Diagnostics,
    diagnose,
    log_weights,
    mean_rewards,
    metropolis_hastings,
)
from alignpro_lite.rewriting.spans import Protected
from alignpro_lite.rewriting.trials import Ask, Trial, Trials, rewards_of
from alignpro_lite.target.target import LlamaTarget

ROUND = 4
"""Candidates of the first round of `auto`; each round doubles what there is."""
MOST_SAMPLES = 64
"""`auto` stops here, whatever the budget."""
_RAW = 0
"""Owner of the random streams of the raw prompt; candidate i owns i + 1."""


@dataclass(frozen=True)
class DrawModels:
    """The models of a draw; without a prompter the prompt stays as it is."""

    prompter: OnnxPrompter | None
    target: LlamaTarget
    reward: Reward | None


def draw(
    models: DrawModels, protected: Protected, request: Request, cancellation: Cancellation
) -> Choice:
    """Draw a rewrite and decide whether it is used.

    Args:
        models: What draws, answers and scores.
        protected: The prompt and what every rewrite must keep.
        request: How rewrites and answers are drawn.
        cancellation: Stops the work; the prompt then stays as it is.

    Raises:
        InputError: The prompt is empty or not text, λ is not known, or several samples were asked
            for of an untrained prompter without a reward.
        ContextOverflowError: The prompt does not fit one of the models.
        BundleError: The bundle cannot score with ρ_sft.
        RewardError: The reward failed.
    """
    check_prompt(protected.prompt)
    if models.prompter is None:
        return unchanged(protected.prompt, "no prompter is loaded")
    if models.reward is None:
        usual = models.prompter.bundle.sidecar.sampling
        return _without_reward(
            CandidateSource(models.prompter, protected, request, usual, cancellation)
        )
    # ρ_θ itself: filters would exclude rewrites that ρ* may want, and a low temperature would draw
    # the same ones again and again.
    source = CandidateSource(models.prompter, protected, request, Sampling(), cancellation)
    trials = Trials(models.target, models.reward, protected.prompt, request, cancellation)
    return _WithReward(source, trials).outcome()


def unchanged(prompt: str, reason: str) -> Choice:
    """The choice for a prompt that was never rewritten."""
    certificate = Certificate(reason=reason, changes=word_changes(prompt, prompt))
    return Choice(prompt, prompt, None, certificate)


def _without_reward(source: CandidateSource) -> Choice:
    count = source.settings.samples
    if count == "auto":
        raise InputError(
            "--samples auto needs a reward: without one, no distance to ρ* can be estimated.",
            "Pass --reward, or a number of samples.",
        )
    if count > 1 and source.prompter.bundle.sidecar.provenance.adapter is None:
        raise InputError(
            f"{count} samples need a reward or a trained prompter, found an untrained prompter, "
            "whose implicit reward is the same for all rewrites.",
            "Pass --reward, or a trained bundle.",
        )
    found = source.candidates(count, weighed=count > 1)
    if not found or source.cancellation.asked:
        return _choice(source, source.prompt, source.first, source.none_left())
    best = max(found, key=lambda candidate: candidate.log_ratio) if count > 1 else found[0]
    reason = "rewritten" if count == 1 else f"highest implicit reward of {len(found)}"
    return _choice(source, best.rewrite.text, best.rewrite, reason)


class _WithReward:
    """Draws from ρ* and guards the draw."""

    def __init__(self, source: CandidateSource, trials: Trials) -> None:
        self._source = source
        self._settings = source.settings
        self._trials = trials
        self._strength = _strength_for(source)
        self._candidates: list[Candidate] = []
        self._owners: dict[str, int] = {}
        """Number of the first candidate with each text; others with that text share its answers."""
        self._answers: dict[str, list[Trial]] = {source.prompt: []}
        self._dropped: dict[int, str] = {}
        """Why a candidate has no reward, by its number."""

    def outcome(self) -> Choice:
        """Go through all stages."""
        settings = self._settings
        judging = settings.guard_answers if settings.guard else 0
        raw = judging or settings.answers
        first = self._next_round(reserved=raw + judging)
        if first == 0 and not self._source.cancellation.asked:
            needed = raw + settings.answers + judging
            return self._unchanged(
                f"the budget is too small for one candidate, which takes {needed} answers of up to "
                f"{self._trials.trial_tokens} tokens"
            )
        self._try(first, [Ask(self._source.prompt, _RAW, raw)])
        while not self._is_close() and (count := self._next_round(reserved=judging)):
            self._try(count, [])
        if self._source.cancellation.asked:
            return self._unchanged("cancelled")
        if not self._candidates:
            return self._unchanged(self._source.none_left())
        scored = self._scored()
        if not scored:
            return self._unchanged("no rewrite has a reward")
        return self._guarded(scored)

    def _try(self, count: int, first: Sequence[Ask]) -> None:
        """Draw candidates, and answer those that are new."""
        asks = list(first)
        drawn = self._source.candidates(count, weighed=True)
        self._candidates.extend(drawn)
        for candidate in drawn:
            text = candidate.rewrite.text
            if text in self._owners or text == self._source.prompt:
                continue
            ask = Ask(text, candidate.number + 1, self._settings.answers)
            if self._trials.fits(ask):
                self._owners[text] = candidate.number
                asks.append(ask)
            else:
                self._dropped[candidate.number] = "it does not fit the context"
        if not asks or self._source.cancellation.asked:
            return
        for ask, answered in zip(asks, self._trials.answers(asks), strict=True):
            self._answers.setdefault(ask.sent, []).extend(answered)
            if ask.owner != _RAW and not len(rewards_of(answered)):
                self._dropped[ask.owner - 1] = (
                    "its reward is not a number" if answered else "the time ran out"
                )

    def _next_round(self, reserved: int) -> int:
        """How many candidates to draw next, within the budget.

        Args:
            reserved: Answers that the budget must pay for too, to the prompt and for the guard.
        """
        if self._source.cancellation.asked:
            return 0
        drawn, each = self._source.drawn, self._settings.answers
        if self._settings.samples == "auto":
            size = min(max(ROUND, drawn), MOST_SAMPLES - drawn)
        else:
            size = self._settings.samples - drawn
        return max(0, self._trials.affordable(size * each + reserved) - reserved) // each

    def _scored(self) -> list[Candidate]:
        """The candidates that have a reward, in their order."""
        return [
            candidate
            for candidate in self._candidates
            if len(rewards_of(self._answers.get(candidate.rewrite.text, [])))
        ]

    def _weighed(self, scored: Sequence[Candidate]) -> Candidates:
        answers = [self._answers[candidate.rewrite.text] for candidate in scored]
        return Candidates(
            np.array([candidate.log_reference for candidate in scored]),
            np.array([candidate.rewrite.log_proposal for candidate in scored]),
            *mean_rewards([rewards_of(trials) for trials in answers]),
        )

    def _is_close(self) -> bool:
        """Whether `auto` may stop."""
        if self._settings.samples != "auto" or not (scored := self._scored()):
            return False
        found = diagnose(self._weighed(scored), self._strength)
        return found.distance <= self._settings.tolerance

    def _guarded(self, scored: Sequence[Candidate]) -> Choice:
        """Draw one of the candidates and decide whether it is used."""
        weighed = self._weighed(scored)
        found = diagnose(weighed, self._strength)
        random = np.random.Generator(np.random.Philox(key=[self._source.request.sampling.seed, 1]))
        states = metropolis_hastings(log_weights(weighed, self._strength), random)
        chosen = scored[states[-1]].rewrite
        used, reason, judged = self._verdict(chosen)
        if self._source.cancellation.asked:
            used, reason = False, "cancelled"
        choice = self._choice(chosen.text if used else self._source.prompt, chosen, reason)
        raw = rewards_of(self._answers[self._source.prompt])
        certificate = replace(
            choice.certificate,
            notes=(*choice.certificate.notes, *_noise(found)),
            scored=len(scored),
            diagnostics=found,
            acceptance=float((states[1:] != states[:-1]).mean()) if len(scored) > 1 else None,
            after=estimate_reward(rewards_of(judged or self._answers[chosen.text])),
            gain=gain(rewards_of(judged), raw) if judged else None,
        )
        answers = [*self._answers[choice.sent], *(judged if used else ())]
        return replace(choice, certificate=certificate, answer=self._best(answers))

    def _verdict(self, chosen: Rewrite) -> tuple[bool, str, Sequence[Trial]]:
        """Whether the drawn rewrite is used, why, and the fresh answers that decided it, if any."""
        raw = rewards_of(self._answers[self._source.prompt])
        tried = rewards_of(self._answers[chosen.text])
        if chosen.text == self._source.prompt:
            return False, "the drawn rewrite is the prompt", ()
        if not self._settings.guard:
            return True, "drawn from ρ*", ()
        if not len(raw) or tried.mean() <= raw.mean():
            return False, "the drawn rewrite did no better than the prompt", ()
        judged = self._judged(chosen)
        if not judged:
            return False, "the budget left no answers to judge the rewrite by", ()
        if gain(rewards_of(judged), raw).is_certain:
            return True, "drawn from ρ*, and better than the prompt beyond the noise", judged
        return False, "the drawn rewrite may be no better than the prompt", judged

    def _judged(self, chosen: Rewrite) -> list[Trial]:
        """Fresh answers to the drawn rewrite, which had no part in the draw."""
        count = self._settings.guard_answers
        if self._trials.affordable(count) < count:
            return []
        owner = self._owners[chosen.text] + 1
        ask = Ask(chosen.text, owner, count, first=self._settings.answers)
        (judged,) = self._trials.answers([ask])
        return judged if len(rewards_of(judged)) else []

    def _best(self, answers: Sequence[Trial]) -> Trial | None:
        known = [trial for trial in answers if not np.isnan(trial.reward)]
        if not known or self._settings.returns == "fresh":
            return None
        return max(known, key=lambda trial: trial.reward)

    def _unchanged(self, reason: str) -> Choice:
        prompt = self._source.prompt
        choice = self._choice(prompt, self._source.first, reason)
        return replace(choice, answer=self._best(self._answers[prompt]))

    def _choice(self, sent: str, rewrite: Rewrite | None, reason: str) -> Choice:
        choice = _choice(self._source, sent, rewrite, reason)
        certificate = replace(
            choice.certificate,
            answers=self._settings.answers,
            strength=self._strength,
            before=estimate_reward(rewards_of(self._answers[self._source.prompt])),
            dropped=tuple(f"candidate {number}: {why}" for number, why in self._dropped.items()),
            target_tokens=self._trials.tokens_spent,
            notes=(*self._trials.notes, *self._shortfall()),
        )
        return replace(choice, certificate=certificate)

    def _shortfall(self) -> Iterator[str]:
        drawn, asked = self._source.drawn, self._settings.samples
        if isinstance(asked, int) and drawn < asked:
            yield f"The budget was enough for {drawn} of {asked} candidates."


def _noise(found: Diagnostics) -> Iterator[str]:
    if found.noise > LARGEST_NOISE:
        yield (
            f"The noise of R̂ is {found.noise:.0f} λ, so that the draw follows noise more than R. "
            "Use more answers or a larger λ."
        )


def _strength_for(source: CandidateSource) -> float:
    trained = source.prompter.bundle.sidecar.provenance.strength
    strength = source.settings.strength or trained
    if strength is None:
        raise InputError(
            "A draw from ρ* needs λ, and this prompter was trained without one.",
            "Pass --lambda, for example a tenth of the standard deviation of the rewards.",
        )
    return strength


def _choice(source: CandidateSource, sent: str, rewrite: Rewrite | None, reason: str) -> Choice:
    """What is known without a reward."""
    certificate = Certificate(
        drawn=source.drawn,
        refused=dict(source.refused),
        reason=reason,
        changes=word_changes(source.prompt, sent),
    )
    return Choice(source.prompt, sent, rewrite, certificate)
