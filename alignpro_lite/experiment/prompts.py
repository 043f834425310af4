"""The prompts a prompter is trained and measured on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.rows import BadRow, Row, Rows, optional_text_of, read_rows, text_of
from alignpro_lite.experiment.split import prompt_position

PromptFormat = Literal["instruction", "prompt"]


@dataclass(frozen=True)
class Prompts:
    """All usable prompts, split.

    Attributes:
        train: What training sees, in an order fixed by the seed.
        held_out: What it never sees, likewise.
        too_long: How many were left out because of their length.
        bad: Rows that could not be read, by file.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    too_long: int
    bad: dict[str, tuple[BadRow, ...]]


def read_prompts(path: Path, form: PromptFormat) -> Rows[str]:
    """Read prompts.

    Args:
        path: A JSON array or JSON lines, plain or gzipped.
        form: `instruction` (Self-Instruct, Dolly: an instruction and a context that may be
            empty) or `prompt` (UltraFeedback, or lines with a key prompt).

    Raises:
        InputError: The file cannot be read, or too many of its rows.
    """
    return read_rows(path, _READERS[form])


def split_prompts(
    files: Sequence[tuple[str, Rows[str]]],
    held_out: float,
    seed: int,
    length: Callable[[str], int],
    longest: int,
) -> Prompts:
    """Join, shuffle and split the prompts of several files.

    Args:
        files: Name and rows of each.
        held_out: Share of prompts kept from training, by their hash.
        seed: Of the order.
        length: Tokens of a prompt.
        longest: Prompts with more tokens are left out.

    Raises:
        InputError: One of the two parts is empty.
    """
    unique = dict.fromkeys(prompt for _, rows in files for prompt in rows.rows)
    short = [prompt for prompt in unique if length(prompt) <= longest]
    random.Random(seed).shuffle(short)
    kept = tuple(prompt for prompt in short if prompt_position(prompt) < held_out)
    train = tuple(prompt for prompt in short if prompt_position(prompt) >= held_out)
    if not train or not kept:
        raise InputError(
            f"Prompts are needed to train on and to hold out, found {len(train)} and {len(kept)} "
            f"of at most {longest} tokens.",
            "Add data, or raise data.max_prompt_tokens.",
        )
    bad = {name: rows.bad for name, rows in files}
    return Prompts(train, kept, len(unique) - len(short), bad)


def _instruction(row: Row) -> str:
    instruction = text_of(row, "instruction").strip()
    context = optional_text_of(row, "context")
    return f"{instruction}\n{context}" if context else instruction


def _prompt(row: Row) -> str:
    return text_of(row, "prompt").strip()


_READERS: dict[PromptFormat, Callable[[Row], str]] = {
    "instruction": _instruction,
    "prompt": _prompt,
}
