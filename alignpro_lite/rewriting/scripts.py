"""Which characters make words: most scripts put spaces between them, some do not."""

from __future__ import annotations

UNSPACED = (
    "\u0e00-\u0e4f\u0e5a-\u0ecf\u0eda-\u0eff\u1000-\u103f\u104a-\u108f\u109a-\u109f"
    "\u1780-\u17df\u17ea-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uffef"
)
"""Scripts written without spaces, for a class of a regular expression: a word ends where they
begin. Their digits are left out, and make words as 0 to 9 do."""
LETTER = f"[^\\W{UNSPACED}]"
"""A letter, digit or underscore of a script that is written with spaces."""

QUOTATION_MARKS = "\"'“”„‟«»‹›‘’‚‛`"
"""Marks that no word contains; a fullwidth one is in `UNSPACED`."""


def word_list(block: str) -> list[str]:
    """The words of a block of text, for long tables of them."""
    return block.split()
