"""The tokenizer.json of a bundle: reading it, and keeping its markers out of a user's text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from alignpro_lite.decoding.conversation import is_marker, token_runs
from alignpro_lite.decoding.reasoning import reasoning_format
from alignpro_lite.errors import AlignProError, BundleError


@contextmanager
def panics_as_exceptions() -> Iterator[None]:
    """Turn panics of a tokenizer's Rust code, which are not even an `Exception`, into one.

    Raises:
        RuntimeError: The block panicked.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise RuntimeError(str(error)) from error
        raise


@contextmanager
def tokenizer_errors(file: Path, cure: str) -> Iterator[None]:
    """Turn what a tokenizer raises, which are bare exceptions, into an error that names its file.

    Args:
        file: The tokenizer.json.
        cure: How a damaged one is replaced.

    Raises:
        BundleError: The block failed.
    """
    try:
        with panics_as_exceptions():
            yield
    except (AlignProError, MemoryError):
        raise
    except Exception as error:
        raise BundleError(f"{file} is not a tokenizer that works ({error}).", cure) from error


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


class TextTokenizer:
    """A tokenizer for conversations: what marks structure comes from the template alone.

    Attributes:
        added: Ids of the tokens that were added to the vocabulary, by how they are written.
    """

    def __init__(
        self, tokenizer: Tokenizer, template: str | None, names: Mapping[str, str]
    ) -> None:
        """Take over a tokenizer.

        Args:
            tokenizer: It is set to read markers in a text as text; its ids stay as they are.
            template: The chat template that writes them.
            names: What it writes for names such as `bos_token`.
        """
        added = tokenizer.get_added_tokens_decoder()
        self.added = {str(found.content): token for token, found in added.items()}
        known = reasoning_format(template)
        tags = "\n".join(known.tags if known else ())
        self._silent = frozenset(
            token
            for token, found in added.items()
            if found.special and str(found.content) not in tags
        )
        self._tokenizer = tokenizer
        spell_out_markers(tokenizer, "\n".join([template or "", *names.values()]))

    def encode(self, segments: Iterable[tuple[str, bool]]) -> list[int]:
        """Token ids of a rendered conversation, as `render` returns it."""
        ids: list[int] = []
        for run in token_runs(segments, list(self.added)):
            ids += [self.added[run.text]] if run.special else self.encode_text(run.text)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text, whatever is written in it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids, special tokens left out but for the tags around thoughts."""
        spoken = [token for token in tokens if token not in self._silent]
        return str(self._tokenizer.decode(spoken, skip_special_tokens=False))


def spell_out_markers(tokenizer: Tokenizer, template: str) -> None:
    """Let a tokenizer read special tokens and other markers in a text as text, piece by piece.

    Args:
        tokenizer: It is changed; ids stay as they are.
        template: All that the chat template may write; see `is_marker`.
    """
    tokenizer.encode_special_tokens = True
    tokenizer.add_special_tokens(
        [
            AddedToken(
                str(added.content),
                single_word=added.single_word,
                lstrip=added.lstrip,
                rstrip=added.rstrip,
                normalized=added.normalized,
                special=True,
            )
            for added in tokenizer.get_added_tokens_decoder().values()
            if not added.special and is_marker(str(added.content), template)
        ]
    )
