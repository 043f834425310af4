"""Reads the tokenizer.json of a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenizers import Tokenizer

from alignpro_lite.errors import AlignProError, BundleError


@contextmanager
def tokenizer_errors(file: Path, cure: str) -> Iterator[None]:
    """Turn what a tokenizer raises into an error that names its file.

    The library raises bare exceptions, and lets the panics of its Rust code through, which are not
    even an `Exception`.

    Args:
        file: The tokenizer.json.
        cure: How a damaged one is replaced.

    Raises:
        BundleError: The block failed.
    """
    try:
        yield
    except (AlignProError, MemoryError):
        raise
    except Exception as error:
        raise _failed(file, cure, error) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise _failed(file, cure, error) from error
        raise


def _failed(file: Path, cure: str, error: BaseException) -> BundleError:
    return BundleError(f"{file} is not a tokenizer that works ({error}).", cure)


def read_tokenizer(file: Path, cure: str) -> Tokenizer:
    """Read a tokenizer.json; what it says about padding and truncation does not count.

    Args:
        file: Its path.
        cure: How a damaged one is replaced.

    Raises:
        BundleError: The file is not a tokenizer.
    """
    with tokenizer_errors(file, cure):
        tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer
