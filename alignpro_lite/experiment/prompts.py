"""The prompts a prompter is trained and measured on, some with a reference to check answers by."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from alignpro_lite.errors import InputError
from alignpro_lite.experiment.data_file import BadRowError, numbered_rows
from alignpro_lite.experiment.messages import PROMPT_KEYS, first_prompt_of
from alignpro_lite.experiment.rows import (
    Row,
    answer_of_row,
    lists_of,
    optional_text_of,
    read_rows,
    text_of,
)
from alignpro_lite.reward.exchange import References, TaskReference
from alignpro_lite.reward.ifeval import CONSTRAINT_KEYS, constraints_as_text

PromptFormat = Literal["instruction", "prompt", "gsm8k", "ifeval"]
OWN_REFERENCE: tuple[PromptFormat, ...] = ("gsm8k", "ifeval")
"""Formats of published tasks: they say themselves where the reference is."""


@dataclass(frozen=True)
class Task:
    """A prompt, and what a right answer is recognised by.

    Attributes:
        prompt: x.
        reference: None where nothing is known.
    """

    prompt: str
    reference: TaskReference | None = None


@dataclass(frozen=True)
class Prompts:
    """All usable prompts, split.

    Attributes:
        train: What training sees, in an order fixed by the seed.
        held_out: What it never sees, likewise.
        too_long: How many were left out because of their length.
        references: What is known about right answers, by the prompt.
    """

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    too_long: int
    references: References = field(default_factory=dict)


def read_tasks(
    path: Path, form: PromptFormat, reference: str | None = None
) -> tuple[list[Task], list[str]]:
    """Read prompts with their references; see `read_rows` for what is returned and raised.

    Args:
        path: JSON, JSON lines, CSV or Parquet; see `numbered_rows`.
        form: `instruction` (Self-Instruct, Dolly, Alpaca: an instruction and a context, or input,
            that may be empty), `prompt` (UltraFeedback, ShareGPT: a prompt, or a conversation,
            of which the first message of the user counts), or `gsm8k` or `ifeval`, as published.
        reference: Key of the right answer, in formats that do not say where it is.
    """
    reader = _READERS[form]

    def task(row: Row) -> Task:
        read = reader(row)
        if reference is None:
            return read
        return Task(read.prompt, TaskReference("exact", answer_of_row(row, reference)))

    return read_rows(path, task)


def references_of(tasks: Iterable[Task]) -> References:
    """What is known about right answers, by the prompt; of a repeated prompt the first counts."""
    found: dict[str, TaskReference] = {}
    for task in tasks:
        if task.reference is not None:
            found.setdefault(task.prompt, task.reference)
    return found


def read_labels(path: Path, form: PromptFormat, key: str) -> dict[str, str]:
    """Read what the rows of a file say under a key, by their prompts; rows without it are left out.

    Args:
        path: See `read_tasks`.
        form: Likewise.
        key: The key of a text.

    Raises:
        InputError: The file cannot be read, or no row has the key.
        MissingDependencyError: It is Parquet, and pyarrow is not installed.
    """

    def labelled(row: Row) -> tuple[str, str]:
        return _READERS[form](row).prompt, optional_text_of(row, key)

    rows, _ = read_rows(path, labelled)
    labels = {prompt: label for prompt, label in rows if label}
    if not labels:
        raise InputError(f"{path} must hold rows with {key!r}, found none.", "Correct that key.")
    return labels


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


def _instruction(row: Row) -> Task:
    instruction = text_of(row, "instruction").strip()
    context = optional_text_of(row, "context") or optional_text_of(row, "input")
    return Task(f"{instruction}\n{context}" if context else instruction)


def _prompt(row: Row) -> Task:
    return Task(first_prompt_of(row).strip())


def _gsm8k(row: Row) -> Task:
    question = text_of(row, "question").strip()
    return Task(question, TaskReference("gsm8k", text_of(row, "answer").strip()))


def _ifeval(row: Row) -> Task:
    prompt = text_of(row, "prompt").strip()
    lists_of(row, *CONSTRAINT_KEYS)
    try:
        return Task(prompt, TaskReference("ifeval", constraints_as_text(row)))
    except (TypeError, ValueError) as error:  # Parquet holds what JSON does not
        raise BadRowError(f"expected constraints that JSON can hold ({error})") from error


_READERS: dict[PromptFormat, Callable[[Row], Task]] = {
    "instruction": _instruction,
    "prompt": _prompt,
    "gsm8k": _gsm8k,
    "ifeval": _ifeval,
}
