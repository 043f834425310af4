"""What counts as equal to the original."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from alignpro_lite.errors import ExportError
from alignpro_lite.export.logits import Ids, Logits
from alignpro_lite.export.parity import Bar, Reference, compare_logits, require_parity
from alignpro_lite.prompter.bundle import Parity

IDS = np.arange(40) % 7


@dataclass(frozen=True)
class Counting:
    """A model that expects each number to be followed by the next, with some confidence."""

    confidence: float

    def logits(self, ids: Ids) -> Logits:
        logits = np.zeros((len(ids), 7), np.float32)
        logits[np.arange(len(ids)), (ids + 1) % 7] = self.confidence
        return logits


def compared(confidence: float, bar: Bar) -> Parity:
    original = Counting(2.0)
    greedy = tuple(int(token) for token in (IDS[31] + 1 + np.arange(24)) % 7)
    reference = Reference((IDS,), (original.logits(IDS),), greedy)
    return compare_logits(reference, Counting(confidence), bar)


def test_perplexity_is_compared_over_predicted_tokens() -> None:
    """By hand: the right one of 7 tokens has logit c and the others 0."""
    surprises = [math.log(math.exp(c) + 6) - c for c in (1.0, 2.0)]
    ratio = compared(1.0, Bar(0.9)).perplexity_ratio
    assert ratio == pytest.approx(math.exp(surprises[0] - surprises[1]), rel=1e-5)
    assert compared(2.0, Bar(0.9)).perplexity_ratio == pytest.approx(1)


def test_a_model_that_decides_alike_but_knows_less_is_refused() -> None:
    parity = compared(1.0, Bar(0.95, 1.03))
    assert parity.argmax_agreement == 1
    with pytest.raises(ExportError, match=r"disagrees with torch too much.*perplexity 1\.\d+"):
        require_parity(parity, "The int4 graph", "")


def test_without_a_limit_perplexity_is_only_reported() -> None:
    require_parity(compared(1.0, Bar(0.95)), "The file", "")
