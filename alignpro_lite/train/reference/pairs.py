"""Pairs of a prompt and the hint that helps to answer it, split into training and held-out ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.errors import InputError
from alignpro_lite.experiment.data_file import BadRowError
from alignpro_lite.experiment.messages import Turn, transcript, turns_of
from alignpro_lite.experiment.prompts import prompt_position
from alignpro_lite.experiment.rows import Row, optional_text_of, read_rows, text_of
from alignpro_lite.train.reference.config import HintDataSection


@dataclass(frozen=True)
class HintPair:
    """A prompt and its hint.

    Attributes:
        kind: What kind of prompt it is: the name of its file.
        language: Of the prompt, as a code.
        earlier: What was said before the prompt, empty for most.
        prompt: x, the last message of the user.
        hint: What a person wrote; empty where the prompt is best left alone.
    """

    kind: str
    language: str
    earlier: tuple[Message, ...]
    prompt: str
    hint: str

    @property
    def position(self) -> float:
        """Where it falls in [0, 1) by the hash of all that is said; see `prompt_position`."""
        said = [
            Turn("assistant" if turn.role == "assistant" else "user", turn.content)
            for turn in self.earlier
        ]
        return prompt_position(transcript([*said, Turn("user", self.prompt)]))


@dataclass(frozen=True)
class HintPairs:
    """All pairs of a run.

    Attributes:
        train: What is learned from.
        held_out: What is only measured.
        left_out: A sentence for every row that could not be read.
    """

    train: tuple[HintPair, ...]
    held_out: tuple[HintPair, ...]
    left_out: tuple[str, ...]


def read_pairs(section: HintDataSection, folder: Path) -> HintPairs:
    """Read and split the files of a folder.

    Args:
        section: Which folder, and which share is held out.
        folder: What a relative path starts from.

    Raises:
        InputError: There is no file, one cannot be read, or one of the two parts is empty.
    """
    files = sorted((folder / section.folder).glob("*.jsonl"))
    pairs: list[HintPair] = []
    left_out: list[str] = []
    for file in files:
        found, bad = read_rows(file, partial(_pair, kind=file.stem))
        pairs += found
        left_out += [f"{file.name}: {row}" for row in bad]
    held_out = tuple(pair for pair in pairs if pair.position < section.held_out)
    train = tuple(pair for pair in pairs if pair.position >= section.held_out)
    if not train or not held_out:
        raise InputError(
            f"Pairs are needed to train on and to hold out, found {len(train)} and "
            f"{len(held_out)} in {len(files)} *.jsonl files of {folder / section.folder}.",
            "Correct data.folder, add pairs, or change data.held_out.",
        )
    return HintPairs(train, held_out, tuple(left_out))


def _pair(row: Row, kind: str) -> HintPair:
    if "hint" not in row:
        raise BadRowError(f"expected text under 'hint', found a row with {', '.join(row)[:80]}")
    hint, language = optional_text_of(row, "hint"), text_of(row, "language")
    turns = turns_of(row, "turns")
    if turns is None:
        return HintPair(kind, language, (), text_of(row, "prompt").strip(), hint)
    if turns[-1].role != "user":
        raise BadRowError("expected turns that end with a message of the user")
    earlier = tuple(Message(turn.role, turn.text) for turn in turns[:-1])
    return HintPair(kind, language, earlier, turns[-1].text.strip(), hint)
