"""What a reference prompter does with prompts it never saw: does it adapt, and leave alone?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignpro_lite.decoding.sampling import Sampling, stream_seed
from alignpro_lite.registry.record import Record
from alignpro_lite.train.policy import Policy
from alignpro_lite.train.reference.trainer import Lesson, hint_log_probs, in_passes
from alignpro_lite.train.token_trie import pack


class HintFigures(Record):
    """Figures of held-out pairs, for the card.

    Attributes:
        pairs: How many there are.
        loss: Mean loss of a token of the hints that a person wrote, in nats; each hint counts the
            same, however long.
        loss_by_kind: The same by kind of prompt.
        temperature: At which hints are drawn in what follows.
        empty_where_right: Probability of the empty hint, mean over prompts that a person left
            alone.
        empty_where_wrong: The same over all others.
        own: Share of the drawn hints with text that no other prompt got.
    """

    pairs: int
    loss: float
    loss_by_kind: dict[str, float]
    temperature: float
    empty_where_right: float
    empty_where_wrong: float
    own: float

    def summary(self) -> str:
        """The figures in one sentence."""
        return (
            f"{self.pairs} held-out pairs: loss {self.loss:.3f} a token; at temperature "
            f"{self.temperature:g} the hint is empty for {self.empty_where_right:.0%} of prompts "
            f"that should stay as they are and for {self.empty_where_wrong:.0%} of the others; "
            f"{self.own:.0%} of the other hints are given to one prompt only"
        )


@dataclass(frozen=True)
class DrawnHint:
    """A hint that was drawn for a held-out prompt.

    Attributes:
        lesson: The pair.
        text: What was drawn.
    """

    lesson: Lesson
    text: str


@torch.no_grad()
def measure_hints(
    policy: Policy, lessons: Sequence[Lesson], temperature: float, seed: int
) -> tuple[HintFigures, list[DrawnHint]]:
    """Measure held-out pairs, and draw a hint for each.

    Args:
        policy: The trained prompter.
        lessons: The pairs.
        temperature: Of the hints that are drawn.
        seed: Seed of the drawn hints.
    """
    batches = list(in_passes(lessons))
    log_probs = [value for batch in batches for value in hint_log_probs(policy, batch).tolist()]
    empty = [
        math.exp(value) for batch in batches for value in _log_empty(policy, batch, temperature)
    ]
    policy.refresh_sampler()
    drawn = [
        hint
        for number, batch in enumerate(batches)
        for hint in _drawn(policy, batch, Sampling(temperature, seed=stream_seed(seed, number)))
    ]
    texts = [hint.text for hint in drawn if hint.text]
    counts = Counter(texts)
    right = [chance for chance, lesson in zip(empty, lessons, strict=True) if not lesson.pair.hint]
    wrong = [chance for chance, lesson in zip(empty, lessons, strict=True) if lesson.pair.hint]
    figures = HintFigures(
        pairs=len(lessons),
        loss=_loss(log_probs, lessons),
        loss_by_kind=_loss_by_kind(log_probs, lessons),
        temperature=temperature,
        empty_where_right=_mean(right),
        empty_where_wrong=_mean(wrong),
        own=_mean([float(counts[text] == 1) for text in texts]),
    )
    return figures, drawn


def _log_empty(policy: Policy, lessons: Sequence[Lesson], temperature: float) -> list[float]:
    """Log-probability that a prompter stops at once, for each pair."""
    stops = [policy.tokens.encode("") for _ in lessons]
    trie = pack([lesson.request for lesson in lessons], stops)
    chances: list[float] = policy.log_probs(trie, temperature).tolist()
    return chances


def _drawn(policy: Policy, lessons: Sequence[Lesson], sampling: Sampling) -> list[DrawnHint]:
    outputs = policy.continuations([lesson.request for lesson in lessons], 1, sampling)
    return [
        DrawnHint(lesson, policy.tokens.decode(output).strip())
        for lesson, (output,) in zip(lessons, outputs, strict=True)
    ]


def _loss(log_probs: Sequence[float], lessons: Sequence[Lesson]) -> float:
    return _mean(
        [-value / len(lesson.output) for value, lesson in zip(log_probs, lessons, strict=True)]
    )


def _loss_by_kind(log_probs: Sequence[float], lessons: Sequence[Lesson]) -> dict[str, float]:
    kinds: dict[str, list[tuple[float, Lesson]]] = {}
    for value, lesson in zip(log_probs, lessons, strict=True):
        kinds.setdefault(lesson.pair.kind, []).append((value, lesson))
    return {
        kind: _loss([value for value, _ in rows], [lesson for _, lesson in rows])
        for kind, rows in kinds.items()
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
