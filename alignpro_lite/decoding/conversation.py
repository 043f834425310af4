"""Chat messages to token runs, through a model's own chat template.

A template comes with a model file and is rendered in `sandbox.py`. A user's text is data: what
marks structure in the template's mouth is text in the user's. The target and the prompter both use
this module.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from alignpro_lite.decoding.sandbox import render_template
from alignpro_lite.errors import InputError

_PAD = "\v"
"""White space that no template writes itself; it disappears where a template trims."""

_OPENING, _CLOSING = ("Ps", "Pi", "Sm"), ("Pe", "Pf", "Sm")
"""Unicode's categories of brackets, quotes and signs such as `<` and `|`."""

_HTML_TAG = re.compile(
    r"</?(a|article|b|blockquote|body|button|caption|code|dd|div|dl|dt|em|figure|footer|form|h[1-6]"
    r"|head|header|html|i|iframe|img|input|label|li|main|nav|ol|option|p|pre|q|s|script|section"
    r"|select|small|span|strong|style|sub|sup|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|u"
    r"|ul|video)>"
)
"""Gemma's vocabulary has tokens for such tags."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: Who speaks.
        content: What is said.
        reasoning: What a model thought before it; whether that stays in the conversation is up to
            the model's chat template.
    """

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str = ""

    def as_dict(self) -> dict[str, str]:
        """The turn as chat templates and servers know it."""
        turn: dict[str, str] = {"role": self.role, "content": self.content}
        return turn | {"reasoning_content": self.reasoning} if self.reasoning else turn


@dataclass(frozen=True)
class TextRun:
    """A stretch of a rendered prompt.

    Attributes:
        text: The characters.
        special: True for a special token that the template itself wrote.
    """

    text: str
    special: bool


def render(
    template: str | None,
    messages: Sequence[Message],
    special_tokens: Mapping[str, str],
    variables: Mapping[str, bool] | None = None,
) -> list[tuple[str, bool]]:
    """Render a conversation up to where the assistant speaks next.

    A conversation that ends with the assistant's own turn is rendered as it is.

    Args:
        template: The model's Jinja chat template; None joins the plain texts.
        messages: The conversation.
        special_tokens: Values for names such as `bos_token` and `eos_token`.
        variables: Values for other names, such as `enable_thinking`.

    Returns:
        Segments in order: (text, True) is the template's own text, (text, False) a message.

    Raises:
        ModelFileError: The template is broken, too slow or loses a message.
        InputError: The template itself refuses the conversation.
    """
    if template is None:
        return [("\n\n".join(message.content for message in messages), False)]
    marks = {_mark(): message for message in messages}
    thoughts = [_mark() if message.reasoning else "" for message in messages]
    # The pads show whether the template trims a message, which then has to be trimmed too.
    marked = [
        Message(turn.role, _PAD + mark + _PAD, thought and _PAD + thought + _PAD).as_dict()
        for (mark, turn), thought in zip(marks.items(), thoughts, strict=True)
    ]
    rendered = render_template(template, marked, special_tokens, variables or {})
    lost = [turn.role for mark, turn in marks.items() if mark not in rendered]
    if lost and lost != ["assistant"] * len(lost):
        raise InputError(
            f"The model's chat template drops the {lost[0]} message.",
            "Leave the system prompt out, or use a model whose template supports one.",
        )
    segments = []
    texts = {mark: turn.content for mark, turn in marks.items()}
    texts |= {mark: turn.reasoning for mark, turn in zip(thoughts, messages, strict=True) if mark}
    for part in re.split(f"({_PAD}?(?:{'|'.join(texts)}){_PAD}?)", rendered):
        if (text := texts.get(part.strip(_PAD))) is not None:
            segments.append((_as_marked(text, part), False))
        elif part:
            segments.append((part, True))
    return segments


def _as_marked(content: str, marked: str) -> str:
    """Trim a message where its mark has lost a pad."""
    left = content if marked.startswith(_PAD) else content.lstrip()
    return left if marked.endswith(_PAD) else left.rstrip()


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that no model can read.

    Raises:
        InputError: It is empty or not text.
    """
    if not prompt.strip():
        raise InputError("A prompt needs text, found none.", "Pass it as an argument or on stdin.")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The prompt is not valid text: half a surrogate pair at character {error.start}.",
            "Convert it to UTF-8.",
        ) from error


def token_runs(segments: Iterable[tuple[str, bool]], special: Sequence[str]) -> list[TextRun]:
    """Cut segments into special tokens and plain text.

    Neighbouring plain texts are joined across message boundaries, so that they are tokenised
    exactly as the whole prompt would be.

    Args:
        segments: What `render` returns.
        special: Texts of the special tokens that the template may use.

    Returns:
        Runs in order; no two plain runs are neighbours.
    """
    ordered = sorted((re.escape(text) for text in special if text), key=len, reverse=True)
    pattern = re.compile("(" + "|".join(ordered) + ")") if ordered else None
    runs: list[TextRun] = []
    for text, from_template in segments:
        pieces = pattern.split(text) if pattern and from_template else [text]
        for place, piece in enumerate(pieces):
            if not piece:
                continue
            is_special = place % 2 == 1
            if not is_special and runs and not runs[-1].special:
                runs[-1] = TextRun(runs[-1].text + piece, False)
            else:
                runs.append(TextRun(piece, is_special))
    return runs


def is_marker(token: str, template: str) -> bool:
    """Whether a token marks structure, so that it must not come from a user's text.

    Its type in the vocabulary does not say it: published models keep `<think>` and `<tool_call>` as
    they keep runs of white space, HTML tags and added words, which are text like any other.

    Args:
        token: How it is written.
        template: All that the chat template may write.
    """
    if len(token) < 2 or token.isspace():
        return False
    return token in template or (_is_bracketed(token) and not _HTML_TAG.fullmatch(token))


def _is_bracketed(token: str) -> bool:
    """Whether it looks like `<think>`, `[INST]` or `<|user|>`: a name between brackets or signs."""
    inner = token.strip()
    sides = unicodedata.category(inner[0]), unicodedata.category(inner[-1])
    return sides[0] in _OPENING and sides[1] in _CLOSING and any(map(str.isalnum, inner))


def cut_inside(text: str, markers: Iterable[str]) -> list[str]:
    """Cut a text behind the first character of every marker in it: no piece holds a whole one.

    Args:
        text: Any text.
        markers: Of at least two characters each.
    """
    places = (f"(?<={re.escape(marker[0])})(?={re.escape(marker[1:])})" for marker in markers)
    return re.split("|".join(places), text)


def _mark() -> str:
    """A placeholder that no template changes and no message contains."""
    return f"message{secrets.token_hex(16)}"
