"""What happens further down in an answer: repetition part by part, and answers that were cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from alignpro_lite.errors import InputError
from alignpro_lite.measure.text import REPEAT_LENGTH, split_words

SEGMENT_WORDS = 48
"""Words of a segment: about 64 tokens of English, so the first segment is what an answer of at most
64 tokens shows."""
SEGMENTS = 4
"""Segments that are told apart; the last one goes to the end of the answer."""


@dataclass(frozen=True)
class Segments:
    """What a set of answers is like from segment to segment.

    Attributes:
        reached: For each segment, the share of answers that have a word in it.
        repeated: For each segment, the share of its runs of four words that occurred earlier in the
            same answer, over all answers (seq-rep-4 of Welleck 2019, segment by segment); a run
            belongs to the segment of its last word. None where there is no run.
        cut: Share of answers that were cut at the most tokens that an answer may have.
    """

    reached: tuple[float, ...]
    repeated: tuple[float | None, ...]
    cut: float


def describe_segments(answers: Sequence[str], cut: Sequence[bool]) -> Segments:
    """Describe answers segment by segment.

    Args:
        answers: At least one.
        cut: Whether each of them was cut.

    Raises:
        InputError: There is no answer, or not one `cut` for each.
    """
    if not answers or len(answers) != len(cut):
        raise InputError(
            f"Expected at least one answer and whether each was cut, found {len(answers)} and "
            f"{len(cut)}.",
            "Pass one of each for every answer.",
        )
    runs, repeats = [0] * SEGMENTS, [0] * SEGMENTS
    lengths = []
    for answer in answers:
        words = split_words(answer)
        lengths.append(len(words))
        for segment, is_repeat in _runs(words):
            runs[segment] += 1
            repeats[segment] += is_repeat
    return Segments(
        reached=tuple(
            fmean(length > place * SEGMENT_WORDS for length in lengths) for place in range(SEGMENTS)
        ),
        repeated=tuple(
            found / count if count else None for found, count in zip(repeats, runs, strict=True)
        ),
        cut=fmean(cut),
    )


def _runs(words: Sequence[str]) -> list[tuple[int, bool]]:
    """The segment of every run of words, and whether the run occurred before."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for end in range(REPEAT_LENGTH, len(words) + 1):
        run = tuple(words[end - REPEAT_LENGTH : end])
        found.append((min((end - 1) // SEGMENT_WORDS, SEGMENTS - 1), run in seen))
        seen.add(run)
    return found
