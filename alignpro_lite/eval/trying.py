"""One prompt of `eval headroom`: as it is, with hints and rewritten, with answers to each of them.

All answers have random streams of their own: common ones would make their noise look like something
that rewrites share. Rewrites are drawn at temperature 1, from ρ_θ and ρ_sft themselves. One that
`run` would refuse counts as the prompt itself, which is then sent.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.sampling import Sampling, stream_seed, stream_seeds
from alignpro_lite.errors import ContextOverflowError
from alignpro_lite.eval.answers import filled
from alignpro_lite.eval.bench import Bench
from alignpro_lite.eval.design import MORE, HeadroomDesign
from alignpro_lite.measure.headroom import Tried
from alignpro_lite.measure.statistics import FloatArray
from alignpro_lite.prompter.prompter import Prompter
from alignpro_lite.prompter.template import AUGMENT
from alignpro_lite.registry.record import Record
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.rewriting.candidates import CandidateSource
from alignpro_lite.rewriting.request import Request
from alignpro_lite.rewriting.spans import protect
from alignpro_lite.target.rollout import Answer, TargetFailure

_WRITING, _ANSWERING = 1, 2
"""Numbers of the random streams of a prompt."""


class TriedRow(Record):
    """What was tried on a prompt, as a journal holds it.

    Attributes:
        number: Place of the prompt.
        prompt: x.
        seconds: How long it took.
        left_out: Why there is nothing else; empty if there is.
        sent: x', all different: the prompt itself, with each hint, and other rewrites.
        written: How often each source wrote each of them, by source.
        rewards: r*(x, y) of the answers to each of them; an answer without a score has the mean of
            the others to the same text.
        more: The same of further answers to the prompt itself.
        unscored: How many answers have no score of their own.
    """

    number: int
    prompt: str
    seconds: float
    left_out: str = ""
    sent: tuple[str, ...] = ()
    written: tuple[tuple[int, ...], ...] = ()
    rewards: tuple[tuple[float, ...], ...] = ()
    more: tuple[float, ...] = ()
    unscored: int = 0

    @property
    def calls(self) -> int:
        """Answers of the target."""
        return sum(map(len, self.rewards)) + len(self.more)

    @property
    def tried(self) -> Tried:
        """As the statistics need it."""
        written = np.array(self.written, np.int64).reshape(-1, len(self.sent))
        return Tried(np.array(self.rewards), written, np.array(self.more))


class _NoRewardsError(Exception):
    """An answer failed, or all answers to one text have no score."""


@dataclass(frozen=True)
class Trying:
    """What prompts are tried with.

    Attributes:
        bench: Answers; its first judge scores.
        sources: The prompters whose rewrites are tried.
        design: What is tried.
        seed: Of everything that is drawn.
    """

    bench: Bench
    sources: Sequence[Prompter]
    design: HeadroomDesign
    seed: int

    def row(self, number: int, prompt: str) -> TriedRow:
        """Try a prompt.

        Raises:
            AlignProError: A model failed altogether.
        """
        started = time.monotonic()
        seed = stream_seed(self.seed, number)
        try:
            drawn = self._drawn(prompt, stream_seed(seed, _WRITING))
            hinted = [AUGMENT.apply(prompt, hint) for hint in self.design.hints]
            sent = list(dict.fromkeys([prompt, *hinted, *(text for row in drawn for text in row)]))
            scores = self._scores(prompt, sent, stream_seed(seed, _ANSWERING))
        except (ContextOverflowError, _NoRewardsError) as error:
            reason = error.problem if isinstance(error, ContextOverflowError) else str(error)
            return TriedRow(number, prompt, time.monotonic() - started, left_out=reason)
        table = [tuple(map(float, row)) for row in filled(scores)]
        return TriedRow(
            number=number,
            prompt=prompt,
            seconds=time.monotonic() - started,
            sent=tuple(sent),
            written=tuple(tuple(row[text] for text in sent) for row in drawn),
            rewards=tuple(table[: len(sent)]),
            more=tuple(reward for row in table[len(sent) :] for reward in row),
            unscored=int(np.isnan(scores).sum()),
        )

    def _drawn(self, prompt: str, seed: int) -> list[Counter[str]]:
        """How often each source writes each rewrite."""
        found = []
        for place, prompter in enumerate(self.sources):
            request = Request().with_seed(stream_seed(seed, place))
            source = CandidateSource(prompter, protect(prompt), request, Sampling(), Cancellation())
            drawn = source.candidates(self.design.rewrites, weighed=False)
            counts = Counter(candidate.rewrite.text for candidate in drawn)
            counts[prompt] += self.design.rewrites - len(drawn)
            found.append(counts)
        return found

    def _scores(self, prompt: str, sent: Sequence[str], seed: int) -> FloatArray:
        """Scores of the answers to each text, and to the prompt itself again; (texts, answers)."""
        plan = self.bench.plan.with_count(self.design.answers)
        asked = [[Message("user", text)] for text in (*sent, *[prompt] * MORE)]
        outcomes = self.bench.target.answers(asked, plan, stream_seeds(seed, len(asked)))
        flat = [outcome for row in outcomes for outcome in row]
        failed = [found.reason for found in flat if isinstance(found, TargetFailure)]
        if failed:
            raise _NoRewardsError(f"an answer failed ({failed[0]}).")
        (rivals,) = self.bench.rivals([prompt])
        exchanges = [
            Exchange(prompt, found.text, rivals) for found in flat if isinstance(found, Answer)
        ]
        scores = next(iter(self.bench.judges.values())).score(exchanges)
        table = scores.total.reshape(len(asked), -1)
        if unscored := np.isnan(table).all(axis=1).sum():
            raise _NoRewardsError(
                f"all answers to {unscored} of the {len(asked)} texts that were sent have no score."
            )
        return table
