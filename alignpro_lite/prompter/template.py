"""The rewrite template: what a prompter is asked, in training, export and at run time.

A bundle carries the template it was made with, and the card of an adapter the one it was trained
under, so a prompter is never asked in words it was not trained on. The templates below are neutral:
they fit any base, and no adapter was trained into their words.
"""

from __future__ import annotations

from collections.abc import Sequence

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.errors import InputError
from alignpro_lite.registry.entries import RewriteMode
from alignpro_lite.registry.record import Record

_EARLIER = "Earlier in the conversation:\n{turns}\n\n"
_SPEAKERS = {"user": "User", "assistant": "Assistant"}
_TURNS_SHOWN = 4
_CHARACTERS_SHOWN = 400
"""Of each earlier turn: a hint needs to know what was spoken of, not every word."""


class RewriteTemplate(Record):
    """How a prompt x becomes a request to the prompter, and its output becomes x'.

    Attributes:
        mode: `rewrite` takes the output as x'; `augment` appends it to x as
            guidance, so the user's words survive by construction.
        system: What the prompter is told to do; nothing leaves it to the model's own.
        request: The user's turn; `{prompt}` stands for x.
        examples: Pairs (prompt, output) shown before the real one.
    """

    mode: RewriteMode
    system: str
    request: str
    examples: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        """Refuse a template that would ask without the prompt.

        Raises:
            InputError: Says what it asks.
        """
        if "{prompt}" not in self.request:
            raise InputError(
                f"The request of a template must hold {{prompt}}, found {self.request!r:.80}.",
                "Put {prompt} into it.",
            )

    def messages(self, prompt: str, earlier: Sequence[Message] = ()) -> list[Message]:
        """The conversation that asks the prompter to rewrite x.

        Args:
            prompt: x, the last message of the user.
            earlier: What the user and the assistant said before. The last turns are shown, long
                ones without their middle; they are context, and no part of what is rewritten.
        """
        turns = [Message("system", self.system)] if self.system else []
        for example, output in self.examples:
            turns.append(Message("user", self._ask(example)))
            turns.append(Message("assistant", output))
        turns.append(Message("user", _so_far(self.shown(earlier)) + self._ask(prompt)))
        return turns

    def shown(self, earlier: Sequence[Message]) -> tuple[Message, ...]:
        """The turns that `messages` shows: the last ones of the user and the assistant."""
        return tuple(turn for turn in earlier if turn.role in _SPEAKERS)[-_TURNS_SHOWN:]

    def apply(self, prompt: str, output: str) -> str:
        """The rewrite x' from the prompt x and what the prompter wrote.

        The empty hint is x itself, and so is x without the white space around it; the empty rewrite
        is no prompt.
        """
        written = output.strip()
        if self.mode == "rewrite":
            return prompt if written == prompt.strip() else written
        return f"{prompt.rstrip()}\n\n{written}" if written else prompt

    def _ask(self, prompt: str) -> str:
        # Not str.format: a prompt may contain braces.
        return self.request.replace("{prompt}", prompt)


def _so_far(shown: Sequence[Message]) -> str:
    """What precedes the request where something was said before."""
    lines = [f"{_SPEAKERS[turn.role]}: {_shortened(turn.content.strip())}" for turn in shown]
    return _EARLIER.replace("{turns}", "\n".join(lines)) if lines else ""


def _shortened(text: str) -> str:
    """A text without its middle if it is long."""
    if len(text) <= _CHARACTERS_SHOWN:
        return text
    half = _CHARACTERS_SHOWN // 2
    return f"{text[:half]} [...] {text[-half:]}"


REWRITE = RewriteTemplate(
    mode="rewrite",
    system=(
        "You rewrite prompts for an assistant. Make the prompt clear and complete, keep its "
        "meaning, its facts and its language, and add only what any asker would want. A prompt "
        "that is clear already stays as it is. Write the prompt alone, and never answer it."
    ),
    request="Rewrite this prompt:\n{prompt}",
    examples=(
        (
            "why is sky blue",
            "Why is the sky blue? Explain the cause in a few plain sentences.",
        ),
        ("Reply with only the word OK.", "Reply with only the word OK."),
        (
            "python remove duplicates list keep order",
            "Write a Python function that removes duplicates from a list and keeps the order of "
            "its items. Show one example of its use.",
        ),
        (
            "Write a mail to my landlord about the broken heater.",
            "Write a short, polite email to my landlord: the heater is broken, and I ask for a "
            "date when it will be repaired.",
        ),
        (
            "A train goes 180 km in 2 hours, how fast",
            "A train travels 180 km in 2 hours. What is its average speed in km/h? Show the "
            "calculation, then state the result.",
        ),
        (
            "Wie koche ich Reis",
            "Wie koche ich Reis? Nenne die Mengen, die Zeit und die Schritte der Reihe nach.",
        ),
    ),
)

AUGMENT = RewriteTemplate(
    mode="augment",
    system=(
        "You write the hint that goes below a prompt, so that an assistant answers it better. A "
        "hint is one short sentence in the language of the prompt. It says what a good answer to "
        "this prompt needs, and asks for nothing that the prompt excludes. Where the prompt says "
        "it all, write nothing. Never answer the prompt yourself."
    ),
    request="Prompt: {prompt}\nHint:",
    # Each of another kind, and two that need no hint: a prompter that is shown one form repeats it
    # for every prompt.
    examples=(
        (
            "why is sky blue",
            "Explain the cause step by step in plain words, and end with a one-line summary.",
        ),
        ("Reply with only the word OK.", ""),
        ("What is 15% of 80?", "Show the calculation briefly, then state the result."),
        ("Translate good morning into French", "Give only the translation."),
        (
            "python function to remove duplicates from a list",
            "Keep the order of the items, and show one short example of its use.",
        ),
        (
            "Is it better to rent or to buy a home?",
            "Compare both sides, and say which circumstances decide.",
        ),
        ("In which year did the Berlin Wall fall?", "Answer in one short sentence."),
        (
            "Write a mail to my landlord about the broken heater.",
            "Keep it short and polite, and ask for a date when it will be repaired.",
        ),
        ("Sum up in one sentence: The library will open on Sundays, the committee agreed.", ""),
        ("Wie koche ich Reis?", "Nenne die Mengen, die Zeit und die Schritte der Reihe nach."),
        (
            "Give three names for a coffee shop",
            "List three names that differ in style, with a few words on each.",
        ),
    ),
)

TEMPLATES: dict[RewriteMode, RewriteTemplate] = {"rewrite": REWRITE, "augment": AUGMENT}
"""The neutral template of each mode."""
