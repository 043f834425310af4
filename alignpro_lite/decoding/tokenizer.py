"""Reads the tokenizer.json of a bundle."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from alignpro_lite.errors import BundleError


def read_tokenizer(file: Path, cure: str) -> Tokenizer:
    """Read a tokenizer.json.

    Args:
        file: Its path.
        cure: How a damaged one is replaced.

    Raises:
        BundleError: The file is not a tokenizer.
    """
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception on every malformed file
        raise BundleError(f"{file} is not a tokenizer ({error}).", cure) from error
