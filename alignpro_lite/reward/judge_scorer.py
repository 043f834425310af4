"""A judge of pairs as a reward: how surely an answer beats answers to the prompt as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignpro_lite.decoding.cancellation import Cancellation
from alignpro_lite.reward.exchange import Exchange
from alignpro_lite.reward.judge import AnswerPair, PairJudge, Tie, Verdict, require_sense

if TYPE_CHECKING:
    from numpy.typing import NDArray

RIVALS = 2
"""Answers to the prompt that each answer is compared with. They are the same for all answers to a
prompt, so their luck moves all rewards alike; each more costs two readings of every answer."""
_ENOUGH = 8
"""Comparisons after which a judge that talks nonsense is refused."""
_UNDECIDED = (Tie.TOO_LONG, Tie.NONSENSE)
"""Ties that say nothing about the answers."""


class JudgeScorer:
    """A judge as a reward: the mean chance that it prefers y to each of the rivals of an exchange.

    A chance and not log-odds: it is what a win rate counts, it lies between 0 and 1 as theorem 6.1
    asks of a reward, and one comparison that the judge is very sure of cannot outweigh the others.
    An answer that is as good as the rivals, or the same text, has 0.5. So has a comparison that the
    judge cannot decide, beside another one that it can.

    Attributes:
        names: The one name of its part.
    """

    def __init__(self, judge: PairJudge, cancellation: Cancellation | None = None) -> None:
        """Take over a judge; `close` closes it.

        Args:
            judge: What compares.
            cancellation: Stops it.
        """
        self.names = (judge.name,)
        self._judge = judge
        self._cancellation = cancellation

    def stopped_by(self, cancellation: Cancellation) -> JudgeScorer:
        """The same judge for one request; see `Reward.stopped_by`."""
        return JudgeScorer(self._judge, cancellation)

    def score(self, exchanges: Sequence[Exchange]) -> NDArray[np.float64]:
        """Scores of shape (n, 1); NaN without rivals, and where the judge decides about none.

        Raises:
            RewardError: Most of what the judge would reply is nonsense.
            DeviceError: The model failed.
        """
        rows = [_contests(exchange) for exchange in exchanges]
        different = list(dict.fromkeys(pair for row in rows for pair in row))
        verdicts = self._judge.verdicts(different, self._cancellation)
        require_sense(self._judge.name, verdicts, _ENOUGH)
        known = dict(zip(different, verdicts, strict=True))
        return np.array([_mean_chance([known[pair] for pair in row]) for row in rows])[:, None]

    def close(self) -> None:
        """Close the judge."""
        self._judge.close()


def _contests(exchange: Exchange) -> list[AnswerPair]:
    return [AnswerPair(exchange.prompt, exchange.answer, rival) for rival in exchange.rivals]


def _mean_chance(verdicts: Sequence[Verdict]) -> float:
    if all(found.tie in _UNDECIDED for found in verdicts):
        return float("nan")
    return float(np.mean([win_chance(found) for found in verdicts]))


def win_chance(verdict: Verdict) -> float:
    """The probability that the first answer of a pair is the better one, by a judge's margin."""
    return float(1 / (1 + np.exp(-verdict.margin)))
