"""Does a rewrite stay in the language of its prompt? Asks py3langid, a numpy-only classifier."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from alignpro_lite.errors import MissingDependencyError, RegistryError
from alignpro_lite.rewriting.language_tables import identifier_on_disk

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SURE = 0.3
"""How likely a language must be before a text counts as written in it. Names, code and many texts
of a few words stay below this and are never refused."""
RULED_OUT = 0.05
"""Two languages count as different if each is less likely than this for the other text. Close
relatives, such as Danish and Norwegian, are rarely this unlikely for both."""


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
    if min(asked[ours], written[theirs]) < SURE:
        return None
    # A short hint in Spanish looks Galician, though a longer prompt in Spanish does not.
    if max(asked[theirs], written[ours]) >= RULED_OUT:
        return None
    return ours, theirs


@cache
def language_model() -> LanguageIdentifier:
    """The classifier, loaded once, in half a second.

    Raises:
        MissingDependencyError: py3langid is not installed.
        RegistryError: There is no room to unpack it.
    """
    try:
        from py3langid.langid import MODEL_DIR, MODEL_FILE
    except ImportError as error:
        raise MissingDependencyError(
            f"Telling languages apart needs py3langid, which does not load ({error}).",
            "Run `pip install py3langid`.",
        ) from error
    try:
        return identifier_on_disk(MODEL_DIR / MODEL_FILE)
    except OSError as error:
        raise RegistryError(
            "The language classifier is unpacked into a temporary file, which failed "
            f"({error.strerror or error}).",
            "Free some space, or name a folder that has some in the variable TMPDIR.",
        ) from error


def _probabilities(text: str) -> dict[str, float]:
    return dict(language_model().rank(" ".join(text.split())))
