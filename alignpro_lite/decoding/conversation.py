"""A conversation as one text, through a model's own chat template.

The template comes with a model file and is rendered in `sandbox.py`. The target and the prompter
both use this module.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from alignpro_lite.decoding.markers import Rendered, Stretch
from alignpro_lite.decoding.sandbox import render_template
from alignpro_lite.errors import InputError

Role = Literal["system", "user", "assistant"]
Variable = str | bool | int | None
"""What a template may be told beside the conversation."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: What is said.
        reasoning: What a model thought before it; whether that stays in the conversation is up to
            the model's chat template.
    """

    role: Role
    content: str
    reasoning: str = ""

    def as_dict(self) -> dict[str, str]:
        """The turn as chat templates and servers know it."""
        turn: dict[str, str] = {"role": self.role, "content": self.content}
        return turn | {"reasoning_content": self.reasoning} if self.reasoning else turn


def render(
    template: str | None,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    variables: Mapping[str, Variable] | None = None,
) -> Rendered:
    """Render a conversation up to where the assistant speaks next.

    A conversation that ends with the assistant's own turn is rendered as it is. What the system
    says becomes the beginning of the user's first turn if the template has no place for it.

    Args:
        template: The model's Jinja chat template; None joins the plain texts.
        messages: The conversation.
        special_tokens: Values for names such as `bos_token` and `eos_token`.
        variables: Values for other names, such as `enable_thinking`.

    Raises:
        ModelFileError: The template is broken or too slow.
        InputError: The template refuses the conversation or loses a message, or a message is not
            text.
    """
    for message in messages:
        _require_text("message", message.content)
        _require_text("message", message.reasoning)
    if template is None:
        return Rendered("\n\n".join(message.content for message in messages))
    told = _Told(template, tuple(special_tokens.items()), tuple((variables or {}).items()))
    lost = _lost_roles(told, tuple(message.role for message in messages))
    folded = _without_system(messages)
    if folded and (lost is None or "system" in lost):
        return render(template, folded, special_tokens, variables)
    rendered = told.render(messages)
    if lost and set(lost) != {"assistant"}:
        raise InputError(
            f"The model's chat template drops the {lost[0]} message.",
            "Leave the system prompt out, or use a model whose template supports one.",
        )
    return rendered


@dataclass(frozen=True)
class _Told:
    """A template and all that it is told beside the conversation."""

    template: str
    special_tokens: tuple[tuple[str, str], ...]
    variables: tuple[tuple[str, Variable], ...]

    def render(self, messages: Sequence[Message]) -> Rendered:
        text, own = self._written(messages)
        if own is None:
            typed = "\n".join(f"{turn.reasoning}\n{turn.content}" for turn in messages)
            harmless, _ = self._written([_harmless(turn) for turn in messages])
            return Rendered(text, ((0, len(text)),), typed, harmless)
        return Rendered(text, own)

    def _written(self, messages: Sequence[Message]) -> tuple[str, tuple[Stretch, ...] | None]:
        turns = [turn.as_dict() for turn in messages]
        return render_template(
            self.template, turns, dict(self.special_tokens), dict(self.variables)
        )


@functools.lru_cache(maxsize=256)
def _lost_roles(told: _Told, roles: tuple[Role, ...]) -> list[Role] | None:
    """Roles of the messages that a template does not write; None if it refuses a conversation."""
    marked = [_marked(role) for role in roles]
    try:
        text = told.render(marked).text
        return [
            message.role
            for place, message in enumerate(marked)
            if message.content not in text
            # It may be there, but cut or capitalised.
            and text == told.render(_replaced(marked, place)).text
        ]
    except InputError:
        return None


def _replaced(messages: Sequence[Message], place: int) -> list[Message]:
    """The conversation with another message of the same role in one place."""
    return [*messages[:place], _marked(messages[place].role), *messages[place + 1 :]]


def _marked(role: Role) -> Message:
    """A message that no template knows."""
    return Message(role, f"message{secrets.token_hex(16)}")


def _harmless(message: Message) -> Message:
    """A message of the same shape that holds no marker."""
    marked = _marked(message.role)
    return replace(marked, reasoning=marked.content if message.reasoning else "")


def _without_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the system's words in the user's first turn; empty if that is none."""
    match messages:
        case [Message("system", told), Message("user", asked), *others]:
            return [Message("user", f"{told}\n\n{asked}"), *others]
        case _:
            return []


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that no model can read.

    Raises:
        InputError: It is empty or not text.
    """
    if not prompt.strip():
        raise InputError("A prompt needs text, found none.", "Pass it as an argument or on stdin.")
    _require_text("prompt", prompt)


def _require_text(name: str, found: object) -> None:
    """Refuse what cannot be written as UTF-8."""
    if not isinstance(found, str):
        raise InputError(f"A {name} must be text, found {found!r:.80}.", "Pass a string.")
    try:
        found.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The {name} is not valid text: half a surrogate pair at character {error.start}.",
            "Convert it to UTF-8.",
        ) from error
