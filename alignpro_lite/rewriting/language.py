"""Does a rewrite stay in the language of its prompt? Asks fastText's small model, lid.176.ftz."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from alignpro_lite.errors import MissingDependencyError

SURE = 0.5
"""How likely a language must be before a text counts as written in it. Short texts, names and code
stay below this and are never refused."""
RULED_OUT = 0.05
"""The rewrite's language counts as different if it is less likely than this for the prompt.
Close relatives, such as Egyptian and Standard Arabic, are rarely this unlikely."""
_MODEL = Path(__file__).with_name("lid.176.ftz")
_LANGUAGES = 176
"""How many languages the model knows."""


def changed_language(prompt: str, rewrite: str) -> tuple[str, str] | None:
    """The languages of a prompt and its rewrite as ISO 639 codes, if they differ.

    Args:
        prompt: x, best without its code and quotes.
        rewrite: What the prompter wrote, likewise.

    Returns:
        None if both may be in the same language, or if one of them is too short to tell.
    """
    asked, written = _probabilities(prompt), _probabilities(rewrite)
    ours, theirs = max(asked, key=asked.__getitem__), max(written, key=written.__getitem__)
    if min(asked[ours], written[theirs]) < SURE or asked.get(theirs, 0.0) >= RULED_OUT:
        return None
    return ours, theirs


def _probabilities(text: str) -> dict[str, float]:
    # The model reads one line, and mistakes capitals for other languages.
    line = " ".join(text.split())
    labels, chances = _language_model().predict(
        line.lower() if line.isupper() else line, k=_LANGUAGES
    )
    return {
        label.removeprefix("__label__"): chance
        for label, chance in zip(labels, chances, strict=True)
    }


@cache
def _language_model() -> Any:
    """Load the model.

    Raises:
        MissingDependencyError: fasttext-predict is not installed.
    """
    try:
        import fasttext
    except ImportError as error:
        raise MissingDependencyError(
            f"Telling languages apart needs fasttext-predict, which does not load ({error}).",
            "Run `pip install fasttext-predict`.",
        ) from error
    return fasttext.load_model(str(_MODEL))
