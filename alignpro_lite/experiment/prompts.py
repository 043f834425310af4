"""The prompts a prompter is trained and measured on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.data_file import BadRowError, numbered_rows
from alignpro_lite.experiment.messages import PROMPT_KEYS, first_prompt_of
from alignpro_lite.experiment.rows import Row, optional_text_of, read_rows, text_of

PromptFormat = Literal["instruction", "prompt"]


@dataclass(frozen=True)
class Prompts:
    """All usable prompts, split.

    Attributes:
        train: What training sees, in an order fixed by the seed.
        held_out: What it never sees, likewise.
        too_long: How many were left out because of their length.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    too_long: int


def read_prompts(path: Path, form: PromptFormat) -> tuple[list[str], list[str]]:
    """Read prompts; see `read_rows` for what is returned and raised.

    Args:
        path: JSON, JSON lines, CSV or Parquet; see `numbered_rows`.
        form: `instruction` (Self-Instruct, Dolly, Alpaca: an instruction and a context, or input,
            that may be empty) or `prompt` (UltraFeedback, ShareGPT: a prompt, or a conversation,
            of which the first message of the user counts).
    """
    return read_rows(path, _READERS[form])


def prompt_format(path: Path) -> PromptFormat:
    """The format whose keys the first readable row of a file has.

    Raises:
        InputError: The file cannot be read.
        MissingDependencyError: It is Parquet, and pyarrow is not installed.
    """
    rows = (row for _, row in numbered_rows(path) if not isinstance(row, BadRowError))
    first = next(rows, {})
    is_prompt = any(key in first for key in PROMPT_KEYS) or "instruction" not in first
    return "prompt" if is_prompt else "instruction"


def prompt_position(prompt: str) -> float:
    """Where a prompt falls in [0, 1): its sha256, white space and case normalised, as a number.

    The held-out split is a fixed property of a prompt, the same in every run and on every machine.
    Prompts below a share are held out; a larger share holds out all that a smaller one does.
    """
    normal = " ".join(prompt.casefold().split())
    digest = hashlib.sha256(normal.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_prompts(
    prompts: Iterable[str],
    held_out: float,
    seed: int,
    length: Callable[[str], int],
    longest: int,
) -> Prompts:
    """Shuffle and split prompts.

    Args:
        prompts: x, with or without duplicates.
        held_out: Share of prompts kept from training, by their hash.
        seed: Of the order.
        length: Tokens of a prompt.
        longest: Prompts with more tokens are left out.

    Raises:
        InputError: One of the two parts is empty.
    """
    unique = dict.fromkeys(prompts)
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
    return Prompts(train, kept, len(unique) - len(short))


def _instruction(row: Row) -> str:
    instruction = text_of(row, "instruction").strip()
    context = optional_text_of(row, "context") or optional_text_of(row, "input")
    return f"{instruction}\n{context}" if context else instruction


def _prompt(row: Row) -> str:
    return first_prompt_of(row).strip()


_READERS: dict[PromptFormat, Callable[[Row], str]] = {
    "instruction": _instruction,
    "prompt": _prompt,
}
