"""Chooses one rewrite for one prompt and decides whether it is used.

    prompter -> N candidates -> refusals -> trial answers -> rewards -> race, or draw and guard

- Without a reward, a prompter in doubt whether to add anything adds nothing, see `profile.DOUBT`.
- Without a reward, one sample: the rewrite that ρ_θ draws.
- Without a reward, several samples: the one with the highest implicit reward λ log(ρ_θ/ρ_sft)
  (Lemma 5.1 read backwards). The target is not asked.
- With a reward, `balanced`: the rewrites and the prompt race for the answers of the guard, and the
  highest posterior mean wins, see `racing`.
- With a reward, `strict` or `off`: Metropolis-Hastings over the candidates, see `rho_star`.

Candidate i, its log-probabilities and the random streams of its answers depend on the seed and on i
alone, never on N.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import check_prompt
from alignpro_lite.decoding.sampling import Consumer, Sampling, random_stream
from alignpro_lite.errors import InputError
from alignpro_lite.prompter.prompter import Prompter, Rewrite
from alignpro_lite.reward.reward import Reward
from alignpro_lite.rewriting.candidates import Candidate, Candidates, CandidateSource
from alignpro_lite.rewriting.certificate import Certificate, estimate_reward, word_changes
from alignpro_lite.rewriting.guard import Gain, gain
from alignpro_lite.rewriting.pool import Pool
from alignpro_lite.rewriting.posterior import Vector
from alignpro_lite.rewriting.racing import allot, heats
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.result import Choice
from alignpro_lite.rewriting.rho_star import log_weights, metropolis_hastings
from alignpro_lite.rewriting.spans import Protected
from alignpro_lite.rewriting.trials import Trial, Trials, fits, rewards_of
from alignpro_lite.target.target import LlamaTarget

LEFT_AS_IT_IS = "the prompter left your prompt as it is"
"""The reason for x' = x, which is as good a rewrite as others."""
IN_DOUBT = "the prompter doubts that a hint helps"
CHOSEN_BY_USER = "the user chose it"
KEPT_BY_USER = "the user kept it"


@dataclass(frozen=True)
class _Verdict:
    """Whether a rewrite is used.

    Attributes:
        used: Or the prompt as it is.
        reason: One phrase.
        gain: What was compared; None if nothing was.
    """

    used: bool
    reason: str
    gain: Gain | None = None


@dataclass(frozen=True)
class DrawModels:
    """The models of a draw; without a prompter the prompt stays as it is."""

    prompter: Prompter | None
    target: LlamaTarget
    reward: Reward | None


def draw(
    models: DrawModels, protected: Protected, request: Request, cancellation: Cancellation
) -> Choice:
    """Draw a rewrite and decide whether it is used, without saying how far it is; see `drawing`."""
    return _chosen(drawing(models, protected, request, cancellation))


def draw_alone(
    prompter: Prompter, protected: Protected, request: Request, cancellation: Cancellation
) -> Choice:
    """Draw a rewrite for a target that is elsewhere: no reward, and any length fits; see `drawing`.

    Raises:
        InputError, ContextOverflowError, BundleError: See `drawing`.
    """
    check_prompt(protected.prompt)
    if request.why_kept is not None:
        return unchanged(protected.prompt, request.why_kept)
    usual = prompter.profile.sampling
    source = CandidateSource(prompter, protected, request, usual, cancellation)
    return _chosen(_without_reward(source, None))


def _chosen(steps: Generator[Candidates, None, Choice]) -> Choice:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            choice: Choice = done.value
            return choice


def drawing(
    models: DrawModels, protected: Protected, request: Request, cancellation: Cancellation
) -> Generator[Candidates, None, Choice]:
    """Draw a rewrite and decide whether it is used.

    Args:
        models: What draws, answers and scores.
        protected: The prompt and what every rewrite must keep.
        request: How rewrites and answers are drawn.
        cancellation: Stops the work; the prompt then stays as it is.

    Yields:
        How far the draw is.

    Returns:
        The prompt in use.

    Raises:
        InputError: The prompt is empty or not text, λ is not known, or several samples were asked
            for of an untrained prompter without a reward.
        ContextOverflowError: The prompt does not fit one of the models.
        BundleError: The bundle cannot score with ρ_sft.
        RewardError: The reward failed.
    """
    check_prompt(protected.prompt)
    if request.why_kept is not None:
        return unchanged(protected.prompt, request.why_kept)
    if models.prompter is None:
        return unchanged(protected.prompt, "no prompter is loaded")
    if models.reward is None:
        usual = models.prompter.profile.sampling
        source = CandidateSource(models.prompter, protected, request, usual, cancellation)
        return (yield from _without_reward(source, models.target))
    # ρ_θ itself: filters would exclude rewrites that ρ* may want, and a low temperature would draw
    # the same ones again and again.
    source = CandidateSource(models.prompter, protected, request, Sampling(), cancellation)
    trials = Trials(models.target, models.reward, protected.prompt, request, cancellation)
    return (yield from _WithReward(source, trials).outcome())


def unchanged(prompt: str, reason: str) -> Choice:
    """The choice for a prompt that was never rewritten."""
    certificate = Certificate(reason=reason, changes=word_changes(prompt, prompt))
    return Choice(prompt, prompt, None, certificate)


def chosen_by_user(prompt: str, sent: str, rewrite: Rewrite | None) -> Choice:
    """The choice of a user who saw a rewrite, or needed none."""
    reason = KEPT_BY_USER if sent == prompt else CHOSEN_BY_USER
    certificate = Certificate(reason=reason, changes=word_changes(prompt, sent))
    return Choice(prompt, sent, rewrite, certificate)


def _without_reward(
    source: CandidateSource, target: LlamaTarget | None
) -> Generator[Candidates, None, Choice]:
    count = source.settings.samples
    if count == "auto":
        raise InputError(
            "--samples auto needs a reward: without one, no distance to ρ* can be estimated.",
            "Pass --reward, or a number of samples.",
        )
    if count > 1 and not source.prompter.profile.is_trained:
        raise InputError(
            f"{count} samples need a reward, or a prompter that was trained by one, found a "
            "prompter whose implicit reward is the same for all rewrites.",
            "Pass --reward, or a trained bundle.",
        )
    if source.is_in_doubt:
        return _choice(source, source.prompt, None, IN_DOUBT)
    drawn = source.candidates(count, weighed=count > 1)
    yield source.progress()
    if not drawn or source.cancellation.asked:
        return _choice(source, source.prompt, source.first, source.none_left())
    found = [
        candidate
        for candidate in drawn
        if target is None or fits(target, source.request, candidate.rewrite.text)
    ]
    if not found:
        return _choice(source, source.prompt, source.first, "no rewrite fits the context")
    best = max(found, key=lambda candidate: candidate.log_ratio) if count > 1 else found[0]
    if count > 1:
        yield source.progress(len(found), best.rewrite)
    reason = "rewritten" if count == 1 else f"highest implicit reward of {len(found)}"
    if best.rewrite.text == source.prompt:
        reason = LEFT_AS_IT_IS
    return _choice(source, best.rewrite.text, best.rewrite, reason)


class _WithReward:
    """Chooses among candidates by the answers to them: by a race, or by a draw from ρ*."""

    def __init__(self, source: CandidateSource, trials: Trials) -> None:
        self._source = source
        self._settings = source.settings
        self._trials = trials
        self._pool = Pool(source, trials, _strength_for(source))

    def outcome(self) -> Generator[Candidates, None, Choice]:
        """Go through all stages."""
        settings, pool = self._settings, self._pool
        raw, later = self._besides()
        first = pool.next_round(reserved=raw + later)
        if first == 0 and not self._source.cancellation.asked:
            needed = raw + settings.answers + later + self._trials.rivals_wanted
            return self._unchanged(
                f"the budget is too small for one candidate, which takes {needed} answers of up to "
                f"{self._trials.trial_tokens} tokens"
            )
        yield from pool.grow(first, raw)
        while not pool.is_close() and (count := pool.next_round(reserved=later)):
            yield from pool.grow(count, raw=0)
        if self._source.cancellation.asked:
            return self._unchanged("cancelled")
        if not pool.candidates:
            return self._unchanged(self._source.none_left())
        scored = pool.scored()
        if not scored:
            return self._unchanged("no rewrite has a reward")
        if settings.guard == "balanced":
            return (yield from self._raced(scored, later))
        return self._drawn(scored)

    def _besides(self) -> tuple[int, int]:
        """Answers to the prompt in the first round, and those that follow the last one."""
        each, judging = self._settings.answers, self._settings.guard_answers
        match self._settings.guard:
            case "off":
                return each, 0
            case "strict":
                return judging, judging
            case "balanced":
                return min(each, judging), 2 * judging - min(each, judging)

    def _raced(
        self, scored: Sequence[Candidate], answers: int
    ) -> Generator[Candidates, None, Choice]:
        """Let the rewrites race each other and the prompt for what answers are left."""
        racers = _different(scored, self._source.prompt)
        if not racers:
            return self._told(scored, scored[0], _Verdict(False, LEFT_AS_IT_IS), self._pool.raw)
        for heat in heats(len(racers), answers):
            affordable = self._trials.affordable(heat.answers)
            if self._source.cancellation.asked or not affordable:
                break
            raw, counts = allot(self._gains(racers), replace(heat, answers=affordable))
            self._pool.compare(raw, dict(zip(racers, counts.tolist(), strict=True)))
            yield self._pool.progress()
        gains = self._gains(racers)
        best = int(gains.argmax())
        found = Gain(math.nan, -math.inf, float(gains[best]))
        used = found.is_expected
        won = f"the best of {len(racers)} in a race, and " if len(racers) > 1 else ""
        verdict = _Verdict(
            used,
            f"{won}expected to be better than the prompt"
            if used
            else "no rewrite is expected to be better than the prompt",
            found,
        )
        return self._told(scored, racers[best], verdict, self._pool.answers_to(racers[best]))

    def _gains(self, racers: Sequence[Candidate]) -> Vector:
        """Posterior mean of R of each rewrite over that of the prompt; shape (racers,)."""
        raw = self._pool.prompt_rewards()
        if not len(raw):
            return np.full(len(racers), -math.inf)
        # From an answer, not from 0: equal rewards then give exactly 0, whatever their size.
        worth, _ = self._pool.worth(racers, {}, origin=raw[0])
        gains: Vector = worth.mean - (raw - raw[0]).mean()
        return gains

    def _drawn(self, scored: Sequence[Candidate]) -> Choice:
        """Draw one of the candidates from ρ* and decide whether it is used."""
        random = random_stream(self._source.request.sampling.seed, Consumer.CHAIN)
        assert self._pool.strength is not None, "only a race needs none"
        weights = log_weights(self._pool.weighed(scored), self._pool.strength)
        states = metropolis_hastings(weights, random)
        acceptance = float((states[1:] != states[:-1]).mean()) if len(scored) > 1 else None
        chosen, trials = scored[states[-1]], self._pool.answers_to(scored[states[-1]])
        if chosen.rewrite.text == self._source.prompt:
            verdict, trials = _Verdict(False, LEFT_AS_IT_IS), self._pool.raw
        elif self._settings.guard == "off":
            verdict = _Verdict(True, "drawn from ρ*")
        else:
            trials = self._pool.judge(chosen, self._settings.guard_answers)
            verdict = self._judged(scored, chosen, rewards_of(trials))
        choice = self._told(scored, chosen, verdict, trials)
        return replace(choice, certificate=replace(choice.certificate, acceptance=acceptance))

    def _judged(self, scored: Sequence[Candidate], chosen: Candidate, fresh: Vector) -> _Verdict:
        """How much better the drawn rewrite is than the prompt, by answers that did not choose."""
        raw = rewards_of(self._pool.raw)
        expected = -math.inf
        if len(raw):
            judged = {chosen.rewrite.text: fresh}
            worth, places = self._pool.worth(scored, judged, origin=raw[0])
            before = self._pool.prompt_rewards() - raw[0]
            expected = float(worth.mean[places[scored.index(chosen)]] - before.mean())
        found = gain(fresh, raw, expected)
        if math.isnan(found.estimate):
            return _Verdict(False, "there are no answers to judge the rewrite by", found)
        if found.is_certain:
            reason = "drawn from ρ*, and better beyond the noise than the prompt"
            return _Verdict(True, reason, found)
        return _Verdict(False, "the drawn rewrite may be no better than the prompt", found)

    def _told(
        self,
        scored: Sequence[Candidate],
        chosen: Candidate,
        verdict: _Verdict,
        judged: Sequence[Trial],
    ) -> Choice:
        """The choice and its certificate.

        Args:
            scored: The candidates that have a reward.
            chosen: The one that was drawn or won.
            verdict: Whether it is used.
            judged: The answers that say how good it is.
        """
        is_prompt = chosen.rewrite.text == self._source.prompt
        used, reason = verdict.used, verdict.reason
        if self._source.cancellation.asked:
            used, reason = False, "cancelled"
        choice = self._choice(
            chosen.rewrite.text if used else self._source.prompt, chosen.rewrite, reason
        )
        answers = self._pool.answers_to(chosen)
        certificate = replace(
            choice.certificate,
            scored=len(scored),
            diagnostics=self._pool.diagnosed(self._pool.weighed(scored)),
            after=estimate_reward(rewards_of(judged)),
            gain=verdict.gain,
        )
        known = [*answers, *judged] if used or is_prompt else self._pool.raw
        return replace(choice, certificate=certificate, answer=self._best(known))

    def _best(self, answers: Sequence[Trial]) -> Trial | None:
        known = [trial for trial in answers if not np.isnan(trial.reward)]
        if not known or self._settings.returns == "fresh" or not self._trials.continuable:
            return None
        return max(known, key=lambda trial: trial.reward)

    def _unchanged(self, reason: str) -> Choice:
        choice = self._choice(self._source.prompt, self._source.first, reason)
        return replace(choice, answer=self._best(self._pool.raw))

    def _choice(self, sent: str, rewrite: Rewrite | None, reason: str) -> Choice:
        choice = _choice(self._source, sent, rewrite, reason)
        certificate = replace(
            choice.certificate,
            answers=self._settings.answers,
            strength=self._pool.strength,
            before=estimate_reward(rewards_of(self._pool.raw)),
            dropped=tuple(self._pool.dropped()),
            target_tokens=self._trials.tokens_spent,
            scoring_seconds=self._trials.scoring_seconds,
            rivals=self._trials.rivals,
            notes=(*self._trials.notes, *self._shortfall()),
        )
        return replace(choice, certificate=certificate)

    def _shortfall(self) -> Iterator[str]:
        drawn, asked = self._source.drawn, self._settings.samples
        if isinstance(asked, int) and drawn < asked:
            yield f"The budget was enough for {drawn} of {asked} candidates."


def _different(scored: Sequence[Candidate], prompt: str) -> list[Candidate]:
    """The first candidate of each text that is not the prompt."""
    first: dict[str, Candidate] = {}
    for candidate in scored:
        if candidate.rewrite.text != prompt:
            first.setdefault(candidate.rewrite.text, candidate)
    return list(first.values())


def _strength_for(source: CandidateSource) -> float | None:
    """λ, without which nothing can be weighed; a race of a given size compares means alone."""
    settings = source.settings
    strength = settings.strength or source.prompter.profile.strength
    if strength is None and (settings.guard != "balanced" or settings.samples == "auto"):
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
