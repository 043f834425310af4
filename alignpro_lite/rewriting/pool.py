"""The candidates of one request, the answers to them, and what these say about R."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from alignpro_lite.decoding.sampling import Consumer
from alignpro_lite.rewriting.candidates import Candidate, Candidates, CandidateSource
from alignpro_lite.rewriting.posterior import Posterior, Vector, posterior, tally
from alignpro_lite.rewriting.rho_star import Diagnostics, WeighedCandidates, diagnose
from alignpro_lite.rewriting.trials import Ask, Trial, Trials, rewards_of

ROUND = 4
"""Candidates of the first round of `auto`; each round doubles what there is."""
MOST_SAMPLES = 64
"""`auto` stops here, whatever the budget."""
_RAW = 0
"""Owner of the random streams of the raw prompt; candidate i owns i + 1."""


class Pool:
    """Candidates with trial answers, drawn in rounds.

    Attributes:
        source: Draws the candidates.
        trials: Answers them.
        candidates: All that may be used, also those without a reward.
        raw: Answers to the prompt beside the draw.
    """

    def __init__(self, source: CandidateSource, trials: Trials, strength: float | None) -> None:
        """Begin with nothing.

        Args:
            source: Draws candidates.
            trials: Answers them.
            strength: λ; None if no weights are needed.
        """
        self.source = source
        self.trials = trials
        self.strength = strength
        self.candidates: list[Candidate] = []
        self.raw: list[Trial] = []
        self._answers: dict[str, list[Trial]] = {}
        """Those to all candidates of each text that fits the context."""
        self._asked: Counter[tuple[int, Consumer]] = Counter()
        """How many answers of an owner were asked for, so that no two have one stream."""

    def grow(self, count: int, raw: int) -> Iterator[Candidates]:
        """Draw candidates and answer each of them, also those that were drawn before.

        Equal rewrites share all their answers afterwards: the more often one is drawn, the better
        its R is known, and the draw tends to ρ* as N grows.

        Args:
            count: Candidates.
            raw: Answers to the prompt, decoded with theirs.

        Yields:
            How far the draw is, after either step.
        """
        drawn = self.source.candidates(count, weighed=True)
        self.candidates.extend(drawn)
        yield self.progress()
        asks = [Ask(self.source.prompt, _RAW, raw, Consumer.JUDGING)] if raw else []
        each = self.source.settings.answers
        for candidate in drawn:
            ask = Ask(candidate.rewrite.text, candidate.number + 1, each)
            if self.trials.fits(ask):
                self._answers.setdefault(ask.sent, [])
                asks.append(ask)
        self._keep(asks)
        yield self.progress()

    def progress(self) -> Candidates:
        """How far the draw is, and the candidate with the highest posterior mean of R so far."""
        scored = self.scored()
        if not scored:
            return self.source.progress()
        worth, places = self.worth(scored, {})
        best = max(range(len(scored)), key=lambda number: worth.mean[places[number]])
        return self.source.progress(len(scored), scored[best].rewrite)

    def compare(self, raw: int, rewrites: Mapping[Candidate, int]) -> None:
        """Give the prompt and some rewrites more answers, which count with the earlier ones."""
        asks = [
            Ask(candidate.rewrite.text, candidate.number + 1, count, Consumer.JUDGING)
            for candidate, count in rewrites.items()
        ]
        asks.append(Ask(self.source.prompt, _RAW, raw, Consumer.JUDGING))
        self._keep([ask for ask in asks if ask.count])

    def judge(self, chosen: Candidate, count: int) -> list[Trial]:
        """Answer a candidate in private: what is said has no part in what is known here."""
        if self.trials.affordable(count) < count:
            return []
        ask = Ask(chosen.rewrite.text, chosen.number + 1, count, Consumer.JUDGING)
        (judged,) = self._answered([ask])
        return judged

    def _keep(self, asks: Sequence[Ask]) -> None:
        if not asks or self.source.cancellation.asked:
            return
        for ask, answered in zip(asks, self._answered(asks), strict=True):
            known = self.raw if ask.owner == _RAW else self._answers[ask.sent]
            known.extend(answered)

    def _answered(self, asks: Sequence[Ask]) -> list[list[Trial]]:
        numbered = [replace(ask, first=self._asked[ask.owner, ask.purpose]) for ask in asks]
        for ask in asks:
            self._asked[ask.owner, ask.purpose] += ask.count
        return self.trials.answers(numbered)

    def next_round(self, reserved: int) -> int:
        """How many candidates to draw next, within the budget.

        Args:
            reserved: Answers that the budget must pay for too, to the prompt and for the guard.
        """
        if self.source.cancellation.asked:
            return 0
        settings, drawn = self.source.settings, self.source.drawn
        if settings.samples == "auto":
            size = min(max(ROUND, drawn), MOST_SAMPLES - drawn)
        else:
            size = settings.samples - drawn
        each = settings.answers
        return max(0, self.trials.affordable(size * each + reserved) - reserved) // each

    def is_close(self) -> bool:
        """Whether `auto` may stop."""
        settings = self.source.settings
        if settings.samples != "auto" or not (scored := self.scored()):
            return False
        found = self.diagnosed(self.weighed(scored))
        return found is not None and found.distance <= settings.tolerance

    def scored(self) -> list[Candidate]:
        """The candidates that have a reward, in their order."""
        return [candidate for candidate in self.candidates if len(self._rewards(candidate))]

    def answers_to(self, candidate: Candidate) -> list[Trial]:
        """The answers to a candidate, and to those that are equal."""
        return self._answers.get(candidate.rewrite.text, [])

    def _rewards(self, candidate: Candidate) -> Vector:
        return rewards_of(self.answers_to(candidate))

    def prompt_rewards(self) -> Vector:
        """Of all answers to the prompt, those to candidates that are the prompt itself included."""
        drawn = self._answers.get(self.source.prompt, [])
        return np.concatenate([rewards_of(self.raw), rewards_of(drawn)])

    def worth(
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
        worth = posterior(tally(answers, [rewards_of(self.raw)]))
        return worth, [places[candidate.rewrite.text] for candidate in scored]

    def weighed(self, scored: Sequence[Candidate]) -> WeighedCandidates:
        """Candidates as the weights of ρ* need them."""
        worth, places = self.worth(scored, {})
        return WeighedCandidates(
            np.array([candidate.log_reference for candidate in scored]),
            np.array([candidate.rewrite.log_proposal for candidate in scored]),
            np.array(places),
            worth,
        )

    def diagnosed(self, weighed: WeighedCandidates) -> Diagnostics | None:
        """What the weights show, those that were refused having none; None without λ."""
        if self.strength is None:
            return None
        waiting = [
            candidate
            for candidate in self.candidates
            if self._answers.get(candidate.rewrite.text) == []  # the time ran out: nothing is known
        ]
        unusable = self.source.drawn - len(weighed.places) - len(waiting)
        return diagnose(weighed, self.strength, unusable)

    def dropped(self) -> Iterator[str]:
        """Why candidates have no reward, a phrase each."""
        for candidate in self.candidates:
            answered = self._answers.get(candidate.rewrite.text)
            if answered is None:
                yield f"candidate {candidate.number}: it does not fit the context"
            elif not answered:
                yield f"candidate {candidate.number}: the time ran out"
            elif all(trial.thought_only for trial in answered):
                yield f"candidate {candidate.number}: its answers were still a thought"
            elif not len(self._rewards(candidate)):
                yield f"candidate {candidate.number}: its reward is not a number"
