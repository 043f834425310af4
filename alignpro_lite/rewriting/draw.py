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

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.decoding.sampling import Consumer, Sampling, random_stream
from alignpro_lite.errors import InputError
from alignpro_lite.prompter.prompter import OnnxPrompter, Rewrite
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.candidates import Candidate, CandidateSource
from alignpro_lite.rewriting.certificate import Certificate, estimate_reward, word_changes
from alignpro_lite.rewriting.guard import Gain, gain
from alignpro_lite.rewriting.posterior import Posterior, Vector, posterior, tally
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice
from alignpro_lite.rewriting.rho_star import (
    Candidates,
    Diagnostics,
    diagnose,
    log_weights,
    metropolis_hastings,
)
from alignpro_lite.rewriting.spans import Protected
from alignpro_lite.rewriting.trials import Ask, Trial, Trials, fits, rewards_of
from alignpro_lite.target.target import LlamaTarget

ROUND = 4
"""Candidates of the first round of `auto`; each round doubles what there is."""
MOST_SAMPLES = 64
"""`auto` stops here, whatever the budget."""
LEFT_AS_IT_IS = "the prompter left your prompt as it is"
"""The reason for x' = x, which is as good a rewrite as others."""
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
        source = CandidateSource(models.prompter, protected, request, usual, cancellation)
        return _without_reward(source, models.target)
    # ρ_θ itself: filters would exclude rewrites that ρ* may want, and a low temperature would draw
    # the same ones again and again.
    source = CandidateSource(models.prompter, protected, request, Sampling(), cancellation)
    trials = Trials(models.target, models.reward, protected.prompt, request, cancellation)
    return _WithReward(source, trials).outcome()


def unchanged(prompt: str, reason: str) -> Choice:
    """The choice for a prompt that was never rewritten."""
    certificate = Certificate(reason=reason, changes=word_changes(prompt, prompt))
    return Choice(prompt, prompt, None, certificate)


def _without_reward(source: CandidateSource, target: LlamaTarget) -> Choice:
    count = source.settings.samples
    if count == "auto":
        raise InputError(
            "--samples auto needs a reward: without one, no distance to ρ* can be estimated.",
            "Pass --reward, or a number of samples.",
        )
    if count > 1 and source.prompter.bundle.sidecar.provenance.adapter is None:
        raise InputError(
            f"{count} samples need a reward or a prompter that one has trained, found a prompter "
            "whose implicit reward is the same for all rewrites.",
            "Pass --reward, or a trained bundle.",
        )
    drawn = source.candidates(count, weighed=count > 1)
    if not drawn or source.cancellation.asked:
        return _choice(source, source.prompt, source.first, source.none_left())
    found = [
        candidate for candidate in drawn if fits(target, source.request, candidate.rewrite.text)
    ]
    if not found:
        return _choice(source, source.prompt, source.first, "no rewrite fits the context")
    best = max(found, key=lambda candidate: candidate.log_ratio) if count > 1 else found[0]
    reason = "rewritten" if count == 1 else f"highest implicit reward of {len(found)}"
    if best.rewrite.text == source.prompt:
        reason = LEFT_AS_IT_IS
    return _choice(source, best.rewrite.text, best.rewrite, reason)


class _WithReward:
    """Draws from ρ* and guards the draw."""

    def __init__(self, source: CandidateSource, trials: Trials) -> None:
        self._source = source
        self._settings = source.settings
        self._trials = trials
        self._strength = _strength_for(source)
        self._candidates: list[Candidate] = []
        self._answers: dict[str, list[Trial]] = {}
        """Those that choose: to all candidates of each text that fits the context."""
        self._raw: list[Trial] = []
        """Answers to the prompt, which only judge."""

    def outcome(self) -> Choice:
        """Go through all stages."""
        settings = self._settings
        judging = 0 if settings.guard == "off" else settings.guard_answers
        raw = judging or settings.answers
        first = self._next_round(reserved=raw + judging)
        if first == 0 and not self._source.cancellation.asked:
            needed = raw + settings.answers + judging
            return self._unchanged(
                f"the budget is too small for one candidate, which takes {needed} answers of up to "
                f"{self._trials.trial_tokens} tokens"
            )
        self._try(first, [Ask(self._source.prompt, _RAW, raw, Consumer.JUDGING)])
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
        """Draw candidates and answer each of them, also those that were drawn before.

        Equal rewrites share all their answers afterwards: the more often one is drawn, the better
        its R is known, and the draw tends to ρ* as N grows.
        """
        drawn = self._source.candidates(count, weighed=True)
        self._candidates.extend(drawn)
        asks = list(first)
        for candidate in drawn:
            ask = Ask(candidate.rewrite.text, candidate.number + 1, self._settings.answers)
            if self._trials.fits(ask):
                self._answers.setdefault(ask.sent, [])
                asks.append(ask)
        if not asks or self._source.cancellation.asked:
            return
        for ask, answered in zip(asks, self._trials.answers(asks), strict=True):
            known = self._raw if ask.owner == _RAW else self._answers[ask.sent]
            known.extend(answered)

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
        return [candidate for candidate in self._candidates if len(self._rewards(candidate))]

    def _rewards(self, candidate: Candidate) -> Vector:
        return rewards_of(self._answers.get(candidate.rewrite.text, []))

    def _worth(
        self, scored: Sequence[Candidate], judged: Mapping[str, Vector], origin: float = 0.0
    ) -> tuple[Posterior, list[int]]:
        """What is known about R of the different rewrites, and which of them each candidate is.

        Args:
            scored: Candidates, which may be equal.
            judged: Rewards of further answers, by text.
            origin: The reward that counts as 0.
        """
        known = {candidate.rewrite.text: self._rewards(candidate) for candidate in scored}
        places = {text: place for place, text in enumerate(known)}
        answers = [
            np.concatenate([rewards, judged.get(text, np.empty(0))]) - origin
            for text, rewards in known.items()
        ]
        worth = posterior(tally(answers, [rewards_of(self._raw)]))
        return worth, [places[candidate.rewrite.text] for candidate in scored]

    def _weighed(self, scored: Sequence[Candidate]) -> Candidates:
        worth, places = self._worth(scored, {})
        return Candidates(
            np.array([candidate.log_reference for candidate in scored]),
            np.array([candidate.rewrite.log_proposal for candidate in scored]),
            np.array(places),
            worth,
        )

    def _diagnosed(self, weighed: Candidates) -> Diagnostics:
        waiting = [
            candidate
            for candidate in self._candidates
            if self._answers.get(candidate.rewrite.text) == []  # the time ran out: nothing is known
        ]
        unusable = self._source.drawn - len(weighed.places) - len(waiting)
        return diagnose(weighed, self._strength, unusable)

    def _is_close(self) -> bool:
        """Whether `auto` may stop."""
        if self._settings.samples != "auto" or not (scored := self._scored()):
            return False
        return self._diagnosed(self._weighed(scored)).distance <= self._settings.tolerance

    def _guarded(self, scored: Sequence[Candidate]) -> Choice:
        """Draw one of the candidates and decide whether it is used."""
        random = random_stream(self._source.request.sampling.seed, Consumer.CHAIN)
        weighed = self._weighed(scored)
        states = metropolis_hastings(log_weights(weighed, self._strength), random)
        chosen = scored[states[-1]]
        text = chosen.rewrite.text
        is_prompt = text == self._source.prompt
        needs_judging = self._settings.guard != "off" and not is_prompt
        judged = self._judged(chosen) if is_prompt or needs_judging else []
        found = self._gain(scored, chosen, judged) if needs_judging else None
        used, reason = self._verdict(text, found)
        if self._source.cancellation.asked:
            used, reason = False, "cancelled"
        choice = self._choice(text if used else self._source.prompt, chosen.rewrite, reason)
        certificate = replace(
            choice.certificate,
            scored=len(scored),
            diagnostics=self._diagnosed(weighed),
            acceptance=float((states[1:] != states[:-1]).mean()) if len(scored) > 1 else None,
            after=estimate_reward(rewards_of(judged or self._answers[text])),
            gain=found,
        )
        answers = [*self._answers[text], *judged] if used or is_prompt else self._raw
        return replace(choice, certificate=certificate, answer=self._best(answers))

    def _verdict(self, text: str, found: Gain | None) -> tuple[bool, str]:
        """Whether the drawn rewrite is used, and why."""
        guard = self._settings.guard
        if text == self._source.prompt:
            return False, LEFT_AS_IT_IS
        if found is None:
            return True, "drawn from ρ*"
        if guard == "strict" and math.isnan(found.estimate):
            return False, "there are no answers to judge the rewrite by"
        if found.passes(guard):
            how = "expected to be better" if guard == "balanced" else "better beyond the noise"
            return True, f"drawn from ρ*, and {how} than the prompt"
        return False, (
            "the drawn rewrite is not expected to be better than the prompt"
            if guard == "balanced"
            else "the drawn rewrite may be no better than the prompt"
        )

    def _gain(
        self, scored: Sequence[Candidate], chosen: Candidate, judged: Sequence[Trial]
    ) -> Gain:
        """How much better the drawn rewrite is than the prompt."""
        raw, fresh = rewards_of(self._raw), rewards_of(judged)
        if not len(raw):
            return gain(fresh, raw, -math.inf)
        # From an answer, not from 0: equal rewards then give exactly 0, whatever their size.
        worth, places = self._worth(scored, {chosen.rewrite.text: fresh}, origin=raw[0])
        # Candidates that are the prompt itself say the same of it as the answers beside the draw.
        before = np.concatenate([raw, rewards_of(self._answers.get(self._source.prompt, []))])
        expected = worth.mean[places[scored.index(chosen)]] - (before - raw[0]).mean()
        return gain(fresh, raw, float(expected))

    def _judged(self, chosen: Candidate) -> list[Trial]:
        """Answers to the drawn rewrite that had no part in the draw; those to x if it is x."""
        if chosen.rewrite.text == self._source.prompt:
            return self._raw
        count = self._settings.guard_answers
        if self._trials.affordable(count) < count:
            return []
        ask = Ask(chosen.rewrite.text, chosen.number + 1, count, Consumer.JUDGING)
        (judged,) = self._trials.answers([ask])
        return judged

    def _best(self, answers: Sequence[Trial]) -> Trial | None:
        known = [trial for trial in answers if not np.isnan(trial.reward)]
        if not known or self._settings.returns == "fresh" or not self._trials.continuable:
            return None
        return max(known, key=lambda trial: trial.reward)

    def _unchanged(self, reason: str) -> Choice:
        choice = self._choice(self._source.prompt, self._source.first, reason)
        return replace(choice, answer=self._best(self._raw))

    def _choice(self, sent: str, rewrite: Rewrite | None, reason: str) -> Choice:
        choice = _choice(self._source, sent, rewrite, reason)
        certificate = replace(
            choice.certificate,
            answers=self._settings.answers,
            strength=self._strength,
            before=estimate_reward(rewards_of(self._raw)),
            dropped=tuple(self._dropped()),
            target_tokens=self._trials.tokens_spent,
            notes=(*self._trials.notes, *self._shortfall()),
        )
        return replace(choice, certificate=certificate)

    def _dropped(self) -> Iterator[str]:
        """Why candidates have no reward, a phrase each."""
        for candidate in self._candidates:
            answered = self._answers.get(candidate.rewrite.text)
            if answered is None:
                yield f"candidate {candidate.number}: it does not fit the context"
            elif not answered:
                yield f"candidate {candidate.number}: the time ran out"
            elif all(trial.thought_only for trial in answered):
                yield f"candidate {candidate.number}: its answers were still a thought"
            elif not len(rewards_of(answered)):
                yield f"candidate {candidate.number}: its reward is not a number"

    def _shortfall(self) -> Iterator[str]:
        drawn, asked = self._source.drawn, self._settings.samples
        if isinstance(asked, int) and drawn < asked:
            yield f"The budget was enough for {drawn} of {asked} candidates."


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
