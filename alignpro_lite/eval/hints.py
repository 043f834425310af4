"""The hints that the best constant hint is chosen from: general ones, and frequent ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.config import read_config
from alignpro_lite.measure.text import split_words
from alignpro_lite.registry.record import NonEmpty, Record

GENERAL_HINTS = Path(__file__).with_name("hints.toml")
"""The file of general hints that comes with the package."""
FREQUENT = 4
"""Hints of a prompter that are tried: those that it writes most often."""


class GeneralHint(Record):
    """[[hint]]: one hint of a file.

    Attributes:
        aim: What it is after, in a few words.
        text: The hint.
    """

    aim: NonEmpty
    text: NonEmpty


class HintFile(Record):
    """hints.toml: hints that fit any prompt.

    Attributes:
        hint: At least two, no text twice.
    """

    hint: Annotated[tuple[GeneralHint, ...], Meta(min_length=2)]

    def __post_init__(self) -> None:
        """Refuse a hint that is there twice.

        Raises:
            InputError: Names it.
        """
        texts = Counter(hint.text.strip() for hint in self.hint)
        text, times = texts.most_common(1)[0]
        if times > 1:
            raise InputError(
                f"every hint must be there once, found {text!r:.60} twice.", "Drop one."
            )


class HintCandidate(Record):
    """A hint that is tried.

    Attributes:
        text: The hint, not empty.
        origin: Its aim, or who writes it and how often.
    """

    text: str
    origin: str


def read_hints(file: Path | None) -> tuple[GeneralHint, ...]:
    """Read a file of hints, by default the package's own.

    Raises:
        InputError: It cannot be read, or a hint is empty or there twice.
    """
    return read_config(file or GENERAL_HINTS, HintFile).hint


def hint_candidates(
    general: Sequence[GeneralHint], written: Mapping[str, Sequence[str]]
) -> list[HintCandidate]:
    """The hints to try: frequent ones of every prompter first, then the general ones.

    Hints that differ in nothing but case and punctuation are tried once. The empty hint is none:
    it is the prompt itself, with which everything is compared anyway.

    Args:
        general: What the file holds.
        written: By prompter, what it wrote for prompts that are not judged, and may be used.
    """
    found = [
        HintCandidate(text, f"{writer} wrote it {times} of {len(hints)} times")
        for writer, hints in written.items()
        for text, times in Counter(filter(None, map(str.strip, hints))).most_common(FREQUENT)
    ]
    found += [HintCandidate(hint.text.strip(), hint.aim) for hint in general]
    first: dict[tuple[str, ...], HintCandidate] = {}
    for candidate in found:
        first.setdefault(tuple(split_words(candidate.text)), candidate)
    return list(first.values())
