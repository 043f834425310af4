"""Conversations as data sets publish them: lists of messages, in the keys of OpenAI or ShareGPT."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alignpro_lite.experiment.data_file import BadRowError, TableCell
from alignpro_lite.experiment.rows import Row, require_text, text_of

PROMPT_KEYS = ("prompt", "messages", "conversations")
"""Where a row keeps what is asked."""

_MESSAGES = re.compile(r"""\s*\[?\s*\{\s*['"](role|from|content|value)['"]\s*:""")
"""How messages in a cell of a table begin, as JSON or as Python prints them."""

_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        role: Who says it.
        text: What it says.
    """

    role: Literal["system", "user", "assistant"]
    text: str


def turns_of(row: Row, key: str) -> tuple[Turn, ...] | None:
    """The messages under a key, of one message or several; None if there is something else.

    Raises:
        BadRowError: A message has no text or no known role.
    """
    value = row.get(key)
    if isinstance(value, TableCell) and _MESSAGES.match(value):
        value = _parsed(value)
    messages = [value] if isinstance(value, dict) else value
    if not isinstance(messages, list) or not all(isinstance(item, dict) for item in messages):
        return None
    return tuple(_turn(message) for message in messages) or None


def prompt_of(row: Row) -> str:
    """What a row asks: a text, or a conversation as `transcript` writes it.

    Raises:
        BadRowError: There is none.
    """
    for key in PROMPT_KEYS:
        if turns := turns_of(row, key):
            return transcript(turns)
    return text_of(row, "prompt")


def first_prompt_of(row: Row) -> str:
    """What a row asks: a text, or the first message of the user, which needs no others.

    Raises:
        BadRowError: There is none.
    """
    for key in PROMPT_KEYS:
        if turns := turns_of(row, key):
            texts = [turn.text for turn in turns if turn.role == "user"]
            if not texts:
                raise BadRowError(f"expected a message of a user under {key!r}, found none")
            return texts[0]
    return text_of(row, "prompt")


def transcript(turns: Sequence[Turn]) -> str:
    """A conversation as one prompt: what the system says first, later turns as HH-RLHF marks them.

    Raises:
        BadRowError: It does not end with a message of the user.
    """
    said = [turn for turn in turns if turn.role != "system"]
    if not said or said[-1].role != "user":
        raise BadRowError("expected a prompt that ends with a message of the user")
    marks = {"user": "Human", "assistant": "Assistant"}
    told = [turn.text for turn in turns if turn.role == "system"]
    later = [f"{marks[turn.role]}: {turn.text}" for turn in said[1:]]
    return "\n\n".join([*told, said[0].text, *later])


def _parsed(cell: TableCell) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise BadRowError(f"expected messages as JSON in a cell, found {cell[:40]!r}") from error


def _turn(message: dict[str, Any]) -> Turn:
    speaker = message.get("role", message.get("from"))
    role = _ROLES.get(str(speaker).lower())
    if role is None:
        raise BadRowError(f"expected a message of a user or an assistant, found one of {speaker!r}")
    return Turn(role, _text(message.get("content", message.get("value"))))


def _text(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(require_text(part, "a part of a message") for part in parts)
    return require_text(content, "a message").strip()
