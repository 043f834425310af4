"""Rewards that keep what they were asked to score."""

from __future__ import annotations

import numpy as np


class NotingScorer:
    """Scores an answer by its length.

    Attributes:
        seen: The answers, in order.
    """

    names = ("length",)

    def __init__(self) -> None:
        self.seen: list[str] = []

    def score(self, exchanges):
        self.seen += [exchange.answer for exchange in exchanges]
        return np.array([[float(len(exchange.answer))] for exchange in exchanges])

    def close(self) -> None:
        pass
