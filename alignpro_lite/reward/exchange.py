"""An exchange, and how a reward model reads it: one layout for training, export and run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from alignpro_lite.decoding.tokenizer import spell_out_markers
from alignpro_lite.registry.record import Count, Record, TokenId

CheckName: TypeAlias = Literal["exact", "gsm8k", "ifeval"]
"""How an answer is compared with a reference; see `alignpro_lite/reward/check.py`."""


@dataclass(frozen=True)
class TaskReference:
    """What a right answer to a prompt is recognised by.

    Attributes:
        check: How the data say that answers are compared with it.
        text: The right answer, with whatever its published form has before it; for ifeval the
            constraints that an answer has to follow, as JSON.
    """

    check: CheckName
    text: str


References: TypeAlias = Mapping[str, TaskReference]
"""What is known about right answers, by the prompt x."""
NO_REFERENCES: References = MappingProxyType({})


@dataclass(frozen=True)
class Exchange:
    """What a reward scores.

    Attributes:
        prompt: The original prompt x, never its rewrite.
        answer: The answer y.
        rivals: Answers to x itself, for a reward that compares; see `Reward.rivals`.
        reference: What a right answer is recognised by; None where nothing is known.
    """

    prompt: str
    answer: str
    rivals: tuple[str, ...] = ()
    reference: TaskReference | None = None


class ExchangeLayout(Record):
    """Where prompt and answer go in the input of a reward model.

    Attributes:
        before: Token ids before the prompt, such as [CLS].
        between: Token ids between prompt and answer, such as [SEP].
        after: Token ids after the answer, such as [SEP] or an end-of-sequence token.
        segments: Whether the model tells the two parts apart by token types 0 and 1.
        prompt_tokens: Most tokens of the prompt; a longer one loses its beginning, because
            the question of a conversation comes last.
        answer_tokens: Most tokens of the answer; a longer one loses its end.
    """

    before: tuple[TokenId, ...]
    between: tuple[TokenId, ...]
    after: tuple[TokenId, ...]
    segments: bool
    prompt_tokens: Count
    answer_tokens: Count


@dataclass(frozen=True)
class EncodedExchange:
    """An exchange as token ids; `token_types` is 0 up to the answer and 1 from there on."""

    ids: tuple[int, ...]
    token_types: tuple[int, ...]


def text_only(tokenizer: Tokenizer) -> Tokenizer:
    """Let a tokenizer read whole texts, and markers that a user writes as text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    spell_out_markers(tokenizer, "")
    return tokenizer


def encode(
    tokenizer: Tokenizer, layout: ExchangeLayout, exchanges: Sequence[Exchange]
) -> list[EncodedExchange]:
    """Token ids of exchanges, unpadded.

    Args:
        tokenizer: The reward model's, as `text_only` returns it.
        layout: Where the parts go.
        exchanges: What to encode.
    """
    prompts = tokenizer.encode_batch([each.prompt for each in exchanges], add_special_tokens=False)
    answers = tokenizer.encode_batch([each.answer for each in exchanges], add_special_tokens=False)
    encoded = []
    for prompt, answer in zip(prompts, answers, strict=True):
        first = (*layout.before, *prompt.ids[-layout.prompt_tokens :], *layout.between)
        second = (*answer.ids[: layout.answer_tokens], *layout.after)
        kinds = (0,) * len(first) + (int(layout.segments),) * len(second)
        encoded.append(EncodedExchange(first + second, kinds))
    return encoded


def padded(batch: Sequence[EncodedExchange], pad: int) -> dict[str, NDArray[np.int64]]:
    """A batch as arrays of shape (n, longest); padding is masked by position."""
    shape = (len(batch), max(len(encoded.ids) for encoded in batch))
    ids = np.full(shape, pad, np.int64)
    types, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, encoded in enumerate(batch):
        length = len(encoded.ids)
        ids[row, :length] = encoded.ids
        types[row, :length] = encoded.token_types
        mask[row, :length] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
