"""The tokenizer.json of a bundle: reading it, and keeping its markers out of a user's text."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from alignpro_lite.decoding.markers import Rendered, Stretch, is_marker
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
        self._twins = _add_twins(tokenizer)
        self._originals = {
            tokenizer.token_to_id(twin): self.added[marker] for marker, twin in self._twins.items()
        }

    def encode(self, rendered: Rendered) -> list[int]:
        """Token ids of a conversation, those of its whole text; a marker in a message is text.

        Raises:
            InputError: See `Rendered.find`.
        """
        own = rendered.find(marker for marker in self._twins if marker in rendered.text).own
        while True:
            text, places = self._with_twins(rendered.text, own)
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
            tokens = zip(encoding.ids, encoding.offsets, strict=True)
            read = [span for token, span in tokens if token in self._originals]
            if len(read) == len(own):
                return [self._originals.get(token, token) for token in encoding.ids]
            # Some tokens are read only as words of their own, or behind a space.
            own = tuple(
                marker
                for marker, (start, end) in zip(own, places, strict=True)
                if any(first <= start and end <= last for first, last in read)
            )

    def _with_twins(self, text: str, own: Sequence[Stretch]) -> tuple[str, list[Stretch]]:
        """A text with twins in place of special tokens, and where they stand in it."""
        parts, places, place, length = [], [], 0, 0
        for start, end in own:
            twin = self._twins[text[start:end]]
            length += start - place
            places.append((length, length + len(twin)))
            length += len(twin)
            parts += [text[place:start], twin]
            place = end
        return "".join([*parts, text[place:]]), places

    def encode_text(self, text: str) -> list[int]:
        """Token ids of a text, whatever is written in it."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of token ids, special tokens left out but for the tags around thoughts."""
        return self.decode_all([token for token in tokens if token not in self._silent])

    def decode_all(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens as they are written."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))


def spell_out_markers(tokenizer: Tokenizer, template: str) -> None:
    """Let a tokenizer read special tokens and other markers in a text as text, piece by piece.

    Args:
        tokenizer: It is changed; ids stay as they are.
        template: All that the chat template may write; see `is_marker`.
    """
    tokenizer.encode_special_tokens = True
    tokenizer.add_special_tokens(
        [
            _like(added, str(added.content), special=True)
            for added in tokenizer.get_added_tokens_decoder().values()
            if not added.special and is_marker(str(added.content), template)
        ]
    )


def _add_twins(tokenizer: Tokenizer) -> dict[str, str]:
    """Add a token beside each special one, which reads the text around it by the same rules.

    Special tokens are spelled out, wherever they stand; their twins are not, and nobody can guess
    how they are written.

    Args:
        tokenizer: As `spell_out_markers` leaves it; ids stay as they are.

    Returns:
        Texts of the twins, by those of the special tokens.
    """
    secret = secrets.token_hex(16)
    special = [
        token
        for token in tokenizer.get_added_tokens_decoder().values()
        if token.special and token.content
    ]
    # Whether a token is a word of its own is seen at its ends, so these stay.
    twins = [
        _like(token, f"{token.content[0]}{secret}:{place}{token.content[-1]}", special=False)
        for place, token in enumerate(special)
    ]
    tokenizer.add_tokens(twins)
    return {
        str(token.content): str(twin.content) for token, twin in zip(special, twins, strict=True)
    }


def _like(token: AddedToken, content: str, *, special: bool) -> AddedToken:
    """Another added token that treats the text around it in the same way."""
    return AddedToken(
        content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=special,
    )
