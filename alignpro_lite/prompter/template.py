"""The one rewrite template: what the prompter is asked, in training, export and at run time.

A bundle carries the template it was made with, so a prompter is never asked in
words it was not trained on.
"""

from __future__ import annotations

from alignpro_lite.decoding.conversation import Message
from alignpro_lite.errors import InputError
from alignpro_lite.registry.models_toml import RewriteMode
from alignpro_lite.registry.record import Record


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

    def messages(self, prompt: str) -> list[Message]:
        """The conversation that asks the prompter to rewrite x."""
        turns = [Message("system", self.system)] if self.system else []
        for example, output in self.examples:
            turns.append(Message("user", self._ask(example)))
            turns.append(Message("assistant", output))
        turns.append(Message("user", self._ask(prompt)))
        return turns

    def apply(self, prompt: str, output: str) -> str:
        """The rewrite x' from the prompt x and what the prompter wrote."""
        written = output.strip()
        return written if self.mode == "rewrite" else f"{prompt.rstrip()}\n\n{written}"

    def _ask(self, prompt: str) -> str:
        # Not str.format: a prompt may contain braces.
        return self.request.replace("{prompt}", prompt)


REWRITE = RewriteTemplate(
    mode="rewrite",
    system=(
        "You improve prompts. Rewrite the user's prompt so that an assistant answers it better: "
        "clearer, more specific, same meaning, same language. Write only the rewritten prompt. "
        "Never answer it."
    ),
    request="Rewrite this prompt:\n{prompt}",
    examples=(
        (
            "why is sky blue",
            "Explain in simple terms why the sky looks blue during the day, and name the physical "
            "effect that causes it.",
        ),
        (
            "Write a mail to my landlord about the broken heater.",
            "Write a short, polite email to my landlord that says the heater is broken, asks for a "
            "repair date this week, and thanks them.",
        ),
    ),
)

_HINT = "Write a thorough explanation of the most important {}, each in a full paragraph."

AUGMENT = RewriteTemplate(
    mode="augment",
    system=(
        "You write hints that help an assistant to answer well. A hint is one short sentence. "
        "Never answer the prompt yourself."
    ),
    request="Prompt: {prompt}\nHint:",
    # One form with one word to choose, a dozen times: at temperature 1 a 135M model that is shown
    # hints of many forms writes what has no form, and wanders off (docs/training-log.md).
    examples=tuple(
        (prompt, _HINT.format(things))
        for prompt, things in (
            ("why is sky blue", "reasons"),
            ("best way to learn guitar", "steps"),
            ("Write a mail to my landlord about the broken heater.", "points"),
            ("What is 15% of 80?", "steps"),
            ("Who was Marie Curie?", "facts"),
            ("How do I fix a flat tire?", "steps"),
            ("Give three names for a coffee shop", "ideas"),
            ("Is it better to rent or to buy a home?", "points"),
            ("Translate good morning into French", "words"),
            ("What should I look at when I buy a used car?", "points"),
            ("Tell me about the history of tea.", "facts"),
            ("Summarize this text: The committee agreed to open the library on Sundays.", "points"),
        )
    ),
)

TEMPLATES: dict[RewriteMode, RewriteTemplate] = {"rewrite": REWRITE, "augment": AUGMENT}
