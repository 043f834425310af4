"""Draws one rewrite for one prompt, from ρ_θ or from ρ*, and decides whether it is used.

    prompter -> N candidates -> refusals -> trial answers -> rewards -> one candidate -> guard

- One sample and no reward: the rewrite that ρ_θ draws.
- Several and no reward: the one with the highest implicit reward λ log(ρ_θ/ρ_sft) (Lemma 5.1
  read backwards). The target is not asked.
- A reward: Metropolis-Hastings over the candidates, see `rho_star`.

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
from alignpro_lite.rewriting.candidates import Candidate, CandidateSource, Tally
from alignpro_lite.rewriting.certificate import Certificate, changes_between, estimate
from alignpro_lite.rewriting.guard import Gain, gain
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
"""Where `auto` stops, whatever the budget."""
_RAW = 0
"""Owner of the random streams of the raw prompt; candidate i owns i + 1."""


@dataclass(frozen=True)
class Models:
    """What takes part in a draw; without a prompter the prompt stays as it is."""

    prompter: OnnxPrompter | None
    target: LlamaTarget
    reward: Reward | None


@dataclass(frozen=True)
class Outcome:
    """The prompt in use, and the best of its answers so far; None if it has none."""

    choice: Choice
    answer: Trial | None


def draw(
    models: Models, protected: Protected, request: Request, cancellation: Cancellation
) -> Outcome:
    """Draw a rewrite and decide whether it is used.

    Args:
        models: What takes part.
        protected: The prompt and what every rewrite keeps.
        request: How rewrites and answers are drawn.
        cancellation: Stops the work; the prompt then stays as it is.

    Raises:
        InputError: The prompt is empty or not text, λ is not known, or several samples were asked
            for of an untrained prompter without a reward.
        ContextOverflowError: The prompt does not fit one of the models.
        BundleError: The bundle cannot tell ρ_sft.
        RewardError: The reward failed.
    """
    check_prompt(protected.prompt)
    if models.prompter is None:
        return Outcome(unchanged(protected.prompt, "no prompter is loaded"), None)
    if models.reward is None:
        usual = models.prompter.bundle.sidecar.sampling
        return _without_reward(
            CandidateSource(models.prompter, protected, request, usual, cancellation)
        )
    # ρ_θ itself: a filter would leave rewrites out that ρ* may want, a temperature would bring the
    # same ones again and again.
    source = CandidateSource(models.prompter, protected, request, Sampling(), cancellation)
    trials = Trials(models.target, models.reward, protected.prompt, request, cancellation)
    return _WithReward(source, trials).outcome()


def unchanged(prompt: str, reason: str) -> Choice:
    """The choice of a prompt that nobody tried to rewrite."""
    return Choice(prompt, prompt, None, _certificate(Tally(), prompt, prompt, reason))


def _without_reward(source: CandidateSource) -> Outcome:
    count = source.settings.samples
    if count == "auto":
        raise InputError(
            "auto needs a reward: without one there is no distance to ρ*.",
            "Pass --reward, or a number of samples.",
        )
    if count > 1 and source.prompter.bundle.sidecar.provenance.adapter is None:
        raise InputError(
            f"{count} samples need a reward or a trained prompter, found an untrained one: its "
            "implicit reward is the same for all.",
            "Pass --reward, or a trained bundle.",
        )
    found = source.candidates(count, weighed=count > 1)
    if not found or source.cancellation.asked:
        return Outcome(_choice(source, None, source.none_left()), None)
    best = max(found, key=lambda one: one.log_ratio) if count > 1 else found[0]
    reason = "rewritten" if count == 1 else f"highest implicit reward of {len(found)}"
    return Outcome(_choice(source, best.rewrite, reason), None)


@dataclass(frozen=True)
class _Verdict:
    """Whether the drawn rewrite is used, why, and the fresh answers that decided it, if any."""

    used: bool
    reason: str
    gain: Gain | None = None
    judged: Sequence[Trial] = ()


class _WithReward:
    """Draws from ρ* and guards the draw."""

    def __init__(self, source: CandidateSource, trials: Trials) -> None:
        self._source = source
        self._settings = source.settings
        self._trials = trials
        self._strength = _strength(source)
        self._candidates: list[Candidate] = []
        self._owners: dict[str, int] = {}
        """Number of the first candidate with each text; others with that text share its answers."""
        self._answers: dict[str, list[Trial]] = {source.prompt: []}

    def outcome(self) -> Outcome:
        """Go through all stages."""
        settings = self._settings
        judging = settings.guard_answers if settings.guard else 0
        raw = judging or settings.answers
        first = self._next_round(reserved=raw + judging)
        if first == 0 and not self._source.cancellation.asked:
            needed = raw + settings.answers + judging
            return self._unchanged(
                f"the budget does not pay for one candidate, which takes {needed} answers of up to "
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
                self._source.tally.dropped[candidate.number] = "it does not fit the context"
        if not asks or self._source.cancellation.asked:
            return
        for ask, answered in zip(asks, self._trials.answers(asks), strict=True):
            self._answers.setdefault(ask.sent, []).extend(answered)
            if ask.owner != _RAW and not len(rewards_of(answered)):
                self._source.tally.dropped[ask.owner - 1] = (
                    "its reward is no number" if answered else "the time was over"
                )

    def _next_round(self, reserved: int) -> int:
        """How many candidates to draw next: what is left of them, as far as the budget goes.

        Args:
            reserved: Answers that are to be paid besides, to the prompt and for the guard.
        """
        if self._source.cancellation.asked:
            return 0
        drawn, each = self._source.tally.drawn, self._settings.answers
        if self._settings.samples == "auto":
            size = min(max(ROUND, drawn), MOST_SAMPLES - drawn)
        else:
            size = self._settings.samples - drawn
        return max(0, self._trials.affordable(size * each + reserved) - reserved) // each

    def _scored(self) -> list[Candidate]:
        """The candidates that have a reward, in their order."""
        return [
            one
            for one in self._candidates
            if len(rewards_of(self._answers.get(one.rewrite.text, [])))
        ]

    def _weighed(self, scored: Sequence[Candidate]) -> Candidates:
        return Candidates(
            reference=np.array([one.log_reference for one in scored]),
            proposal=np.array([one.rewrite.log_proposal for one in scored]),
            rewards=mean_rewards([rewards_of(self._answers[one.rewrite.text]) for one in scored]),
        )

    def _is_close(self) -> bool:
        """Whether `auto` may stop."""
        if self._settings.samples != "auto" or not (scored := self._scored()):
            return False
        found = diagnose(self._weighed(scored), self._strength)
        return found.distance <= self._settings.tolerance

    def _guarded(self, scored: Sequence[Candidate]) -> Outcome:
        """Draw one of the candidates and decide whether it is used."""
        weighed = self._weighed(scored)
        found = diagnose(weighed, self._strength)
        random = np.random.Generator(np.random.Philox(key=[self._source.request.sampling.seed, 1]))
        chain = metropolis_hastings(log_weights(weighed, self._strength), random)
        chosen = scored[int(chain.draws)].rewrite
        verdict = self._verdict(chosen)
        if self._source.cancellation.asked:
            verdict = replace(verdict, used=False, reason="cancelled")
        sent = chosen.text if verdict.used else self._source.prompt
        base = self._certificate(sent, verdict.reason)
        certificate = replace(
            base,
            notes=(*base.notes, *_noise(found)),
            scored=len(scored),
            diagnostics=found,
            acceptance=chain.acceptance if len(scored) > 1 else None,
            after=estimate(rewards_of(verdict.judged or self._answers[chosen.text])),
            gain=verdict.gain,
        )
        answers = [*self._answers[sent], *(verdict.judged if verdict.used else ())]
        choice = Choice(self._source.prompt, sent, chosen, certificate)
        return Outcome(choice, self._best(answers))

    def _verdict(self, chosen: Rewrite) -> _Verdict:
        """Hold the drawn rewrite against the prompt."""
        raw = rewards_of(self._answers[self._source.prompt])
        tried = rewards_of(self._answers[chosen.text])
        if chosen.text == self._source.prompt:
            return _Verdict(False, "the drawn rewrite is the prompt")
        if not self._settings.guard:
            return _Verdict(True, "drawn from ρ*")
        if not len(raw) or tried.mean() <= raw.mean():
            return _Verdict(False, "the drawn rewrite did no better than the prompt")
        judged = self._judged(chosen)
        if not judged:
            return _Verdict(False, "the budget left nothing to judge the rewrite by")
        gained = gain(rewards_of(judged), raw)
        reason = (
            "drawn from ρ*, and better than the prompt beyond the noise"
            if gained.is_certain
            else "the drawn rewrite may be no better than the prompt"
        )
        return _Verdict(gained.is_certain, reason, gained, judged)

    def _judged(self, chosen: Rewrite) -> list[Trial]:
        """Fresh answers to the drawn rewrite, which had no part in its being drawn."""
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

    def _unchanged(self, reason: str) -> Outcome:
        source = self._source
        choice = Choice(
            source.prompt, source.prompt, source.first, self._certificate(source.prompt, reason)
        )
        return Outcome(choice, self._best(self._answers[source.prompt]))

    def _certificate(self, sent: str, reason: str) -> Certificate:
        prompt = self._source.prompt
        return replace(
            _certificate(self._source.tally, prompt, sent, reason),
            answers=self._settings.answers,
            strength=self._strength,
            before=estimate(rewards_of(self._answers[prompt])),
            target_tokens=self._trials.tokens_spent,
            notes=(*self._trials.notes, *self._shortfall()),
        )

    def _shortfall(self) -> Iterator[str]:
        drawn, asked = self._source.tally.drawn, self._settings.samples
        if isinstance(asked, int) and drawn < asked:
            yield f"The budget paid for {drawn} of {asked} candidates."


def _noise(found: Diagnostics) -> Iterator[str]:
    if found.noise > LARGEST_NOISE:
        yield (
            f"The noise of R̂ is {found.noise:.0f} λ: the draw follows it more than R. More answers "
            "or a larger λ mend that."
        )


def _strength(source: CandidateSource) -> float:
    trained = source.prompter.bundle.sidecar.provenance.strength
    strength = source.settings.strength or trained
    if strength is None:
        raise InputError(
            "A draw from ρ* needs λ, and this prompter was trained with none.",
            "Pass --lambda, for example a tenth of the spread of the rewards.",
        )
    return strength


def _choice(source: CandidateSource, used: Rewrite | None, reason: str) -> Choice:
    sent = source.prompt if used is None else used.text
    certificate = _certificate(source.tally, source.prompt, sent, reason)
    return Choice(source.prompt, sent, used or source.first, certificate)


def _certificate(tally: Tally, prompt: str, sent: str, reason: str) -> Certificate:
    """What is known without a reward."""
    return Certificate(
        drawn=tally.drawn,
        scored=0,
        answers=0,
        strength=None,
        diagnostics=None,
        acceptance=None,
        before=None,
        after=None,
        gain=None,
        refused=dict(tally.refused),
        dropped=tuple(f"candidate {number}: {why}" for number, why in tally.dropped.items()),
        target_tokens=0,
        notes=(),
        reason=reason,
        changes=changes_between(prompt, sent),
    )
