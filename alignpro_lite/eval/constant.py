"""The best constant hint: what a prompter is worth that gives every prompt the same hint.

A learned prompter that does no better has learned one sentence. So this system is measured beside
every prompter, whether somebody asked for it or not. The hint is chosen on prompts that are not
judged, by successive halving (Karnin, Koren and Somekh 2013, with thirds for halves): all hints
answer a few prompts, the best third answers twice as many others, and so on until one is left. All
hints of a round answer the same prompts with the same seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import stream_seed, stream_seeds
from alignpro_lite.errors import InputError
from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.evaluation import Evaluation
from alignpro_lite.eval.hints import HintCandidate, hint_candidates, read_hints
from alignpro_lite.eval.journal import CURE, Journal
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.prompter.template import AUGMENT
from alignpro_lite.registry.record import Origin, Record, parse_written, plain
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.target.rollout import Answer

CANDIDATES = "hints.jsonl"
"""Which hints are tried, so that a resumed run goes on with the same."""
TRIALS = "hint-trials.jsonl"
"""The rewards of every hint in every round; what is in it is not tried again."""
SHOWN = 24
"""The most prompts that a prompter writes hints for, to see which it writes most often."""
_TRIED_TOGETHER = 32
"""Answers that hints are tried with in one go: few are decoded as slowly as many."""
_KEPT = 3
"""One in so many hints goes on to the next round."""
_WRITTEN, _TRIED = 1, 2
"""Numbers of the random streams of a choice."""


class HintTrial(Record):
    """How a hint did in one round.

    Attributes:
        round: Number of the round, from 0.
        text: The hint.
        rewards: Of its answers, one for each prompt of the round; None for one without a score.
    """

    round: int
    text: str
    rewards: tuple[float | None, ...]


@dataclass(frozen=True)
class ConstantHint:
    """One hint for every prompt.

    Attributes:
        text: The hint.
        origin: Where it comes from; see `HintCandidate`.
        tried: How many hints were tried; 1 if there was no prompt to choose on.
        answers: How many answers chose it.
    """

    text: str
    origin: str
    tried: int
    answers: int

    def note(self, system: str) -> str:
        """What a reader of the report has to know."""
        how = (
            f"the best of {self.tried}, chosen by {self.answers} answers to prompts that are not "
            "judged"
            if self.tried > 1
            else "not chosen by any reward, because all prompts are judged"
        )
        return f"{system} adds the same hint to every prompt, {how}: “{self.text}” ({self.origin})."


@dataclass(frozen=True)
class HintRace:
    """What a hint is chosen with.

    Attributes:
        bench: Answers; its first judge decides.
        prompts: What the hints are tried on; none of them may be judged.
        first: Prompts of the first round; every further one has twice as many. Where there are not
            so many, prompts are answered again.
        seed: Seed of the trial answers, the same for all hints.
        journal: `TRIALS` of a run.
    """

    bench: Bench
    prompts: Sequence[str]
    first: int
    seed: int
    journal: Journal

    def winner(self, candidates: Sequence[HintCandidate]) -> ConstantHint:
        """Of these hints, the one whose answers score best; without prompts, the first one.

        Raises:
            InputError: The file of trials is damaged.
            AlignProError: The target or the judge failed altogether.
        """
        origin = Origin(self.journal.file, InputError, CURE)
        rows = [parse_written(HintTrial, row, origin) for row in self.journal.read()]
        known = {(row.round, row.text): row for row in rows}
        if not self.prompts or len(candidates) == 1:
            return ConstantHint(candidates[0].text, candidates[0].origin, 1, 0)
        alive, number, answers = list(candidates), 0, 0
        seen: dict[str, list[float | None]] = {candidate.text: [] for candidate in candidates}
        while len(alive) > 1:
            new = [found.text for found in alive if (number, found.text) not in known]
            for trial in self._tried(number, new):
                known[number, trial.text] = trial
            for candidate in alive:
                trial = known[number, candidate.text]
                seen[candidate.text] += trial.rewards
                answers += len(trial.rewards)
            best = sorted(alive, key=lambda candidate: _worth(seen[candidate.text]), reverse=True)
            alive, number = best[: -(-len(alive) // _KEPT)], number + 1
        return ConstantHint(alive[0].text, alive[0].origin, len(candidates), answers)

    def _tried(self, number: int, texts: Sequence[str]) -> Iterator[HintTrial]:
        """Try hints on the prompts of a round, a few hints at a time, and keep the rewards."""
        start, count = self.first * (2**number - 1), self.first * 2**number
        prompts = [self.prompts[place % len(self.prompts)] for place in range(start, start + count)]
        seeds = stream_seeds(stream_seed(self.seed, number), count)
        together = max(1, _TRIED_TOGETHER // count)
        for first in range(0, len(texts), together):
            some = texts[first : first + together]
            rewards = self._rewards(some, prompts, seeds)
            trials = [
                HintTrial(round=number, text=text, rewards=tuple(row))
                for text, row in zip(some, rewards, strict=True)
            ]
            self.journal.append([plain(trial) for trial in trials])
            yield from trials

    def _rewards(
        self, texts: Sequence[str], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[list[float | None]]:
        """The rewards of the answers to every prompt with each hint, all answered together.

        A trial is no comparison that is reported, so it need not stop at a single failure.
        """
        conversations = [
            [Message("user", AUGMENT.apply(prompt, text))] for text in texts for prompt in prompts
        ]
        plan = self.bench.plan.with_count(1)
        outcomes = self.bench.target.answers(conversations, plan, [*seeds] * len(texts))
        rivals = self.bench.rivals(prompts)
        rewards: list[list[float | None]] = [[None] * len(prompts) for _ in texts]
        answered = [
            (*divmod(place, len(prompts)), outcome[0].text)
            for place, outcome in enumerate(outcomes)
            if isinstance(outcome[0], Answer)
        ]
        if answered:
            judge = next(iter(self.bench.judges.values()))
            scores = judge.score(
                [Exchange(prompts[place], answer, rivals[place]) for _, place, answer in answered]
            )
            for (row, place, _), total, failed in zip(
                answered, scores.total, scores.failed, strict=True
            ):
                rewards[row][place] = None if failed else float(total)
        return rewards


def _worth(rewards: Sequence[float | None]) -> float:
    """Mean of the rewards that there are; the lowest worth if there is none."""
    known: FloatArray = np.array([reward for reward in rewards if reward is not None])
    return float(known.mean()) if known.size else -np.inf


def remembered(
    journal: Journal, find: Callable[[], Sequence[HintCandidate]]
) -> list[HintCandidate]:
    """The hints to try, found once and kept.

    Args:
        journal: `CANDIDATES` of a run.
        find: Finds them, the first time.

    Raises:
        InputError: The file is damaged.
    """
    origin = Origin(journal.file, InputError, CURE)
    known = [parse_written(HintCandidate, row, origin) for row in journal.read()]
    if known:
        return known
    found = list(find())
    journal.append([plain(candidate) for candidate in found])
    return found


def choose_constant(evaluation: Evaluation, note: Callable[[str], None]) -> ConstantHint | None:
    """Choose the hint of the constant system, or read what an earlier run tried; None without one.

    Raises:
        InputError: A file of hints or trials is damaged.
        AlignProError: A model is missing or failed.
    """
    if evaluation.lineup.constant is None:
        return None
    config, seed = evaluation.config, evaluation.config.seed

    def found() -> Sequence[HintCandidate]:
        shown = evaluation.spare[:SHOWN] or evaluation.mixed(SHOWN)
        written = {
            bundle: _written(evaluation.loaded.prompter(bundle), shown, stream_seed(seed, _WRITTEN))
            for bundle in evaluation.hinting
        }
        return hint_candidates(read_hints(config.constant.file(evaluation.places.data)), written)

    note("Choosing the best constant hint.")
    race = HintRace(
        bench=evaluation.loaded.bench,
        prompts=evaluation.spare,
        first=config.constant.first_round,
        seed=stream_seed(seed, _TRIED),
        journal=evaluation.journal(TRIALS),
    )
    return race.winner(remembered(evaluation.journal(CANDIDATES), found))


def _written(prompter: Prompter, prompts: Sequence[str], seed: int) -> list[str]:
    """What a prompter adds to each prompt as users get it, where it may be used."""
    usual = prompter.profile.sampling
    hints = []
    for number, prompt in enumerate(prompts):
        request = Request().with_seed(stream_seed(seed, number))
        source = CandidateSource(prompter, protect(prompt), request, usual, Cancellation())
        hints += [found.rewrite.output.strip() for found in source.candidates(1, weighed=False)]
    return hints
