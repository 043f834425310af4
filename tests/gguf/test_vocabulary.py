"""Vocabularies that llama.cpp would crash on, at once or at some later text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from alignpro_lite.decoding.llamacpp import open_vocabulary
from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.kind import require_text_generation
from alignpro_lite.gguf.reading import read_header
from tests.support import TINY_TARGET, gguf_edit
from tests.support.gguf_edit import TEXT, EditableGguf

TOKENS = b"tokenizer.ggml.tokens"
MODEL = b"tokenizer.ggml.model"
LONG_TOKEN = b" ".join([b"long"] * 200)


def checked(tmp_path: Path, change: Callable[[EditableGguf], object]) -> Path:
    """Write the tiny model with a change, and check it."""
    model = gguf_edit.read(TINY_TARGET)
    change(model)
    path = model.write(tmp_path / "changed.gguf")
    require_text_generation(read_header(path))
    return path


def put(place: int, token: bytes) -> Callable[[EditableGguf], object]:
    def change(model: EditableGguf) -> None:
        model.items(TOKENS)[place] = token

    return change


def named(kind: bytes) -> Callable[[EditableGguf], object]:
    def change(model: EditableGguf) -> None:
        model.metadata[MODEL] = (TEXT, kind)

    return change


def with_pre(rule: bytes) -> Callable[[EditableGguf], object]:
    def change(model: EditableGguf) -> None:
        model.metadata[b"tokenizer.ggml.pre"] = (TEXT, rule)

    return change


def sentencepiece(without: bytes = b"") -> Callable[[EditableGguf], object]:
    def change(model: EditableGguf) -> None:
        gguf_edit.make_sentencepiece(model, [b"a", b"b", b"ab"])
        if without:
            tokens = model.items(TOKENS)
            tokens[tokens.index(without)] = b"[taken]"

    return change


def rwkv(without: bytes = b"") -> Callable[[EditableGguf], object]:
    def change(model: EditableGguf) -> None:
        model.metadata[MODEL] = (TEXT, b"rwkv")
        tokens = model.items(TOKENS)
        tokens[1:257] = [repr(bytes([byte]))[2:-1].encode() for byte in range(256)]
        if without:
            tokens[tokens.index(without)] = b"[taken]"
        tokens[257:] = [b"word%d" % place for place in range(257, len(tokens))]

    return change


def no_tokens(model: EditableGguf) -> None:
    model.items(TOKENS).clear()


def no_token_list(model: EditableGguf) -> None:
    del model.metadata[TOKENS]


def numbers_for_tokens(model: EditableGguf) -> None:
    model.put_array(TOKENS, gguf_edit.I32, list(range(384)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # Each of these ended the process: by an assertion, an exception nobody catches, a stack
        # that overflows, or an answer that never comes.
        (put(5, b"a"), "tokens that differ, found b'a' twice"),
        (put(5, b"a\0b"), "tokens that differ, found b'a' twice"),
        (put(5, b"[EMPTY_6]"), None),
        (lambda model: (put(5, b"[EMPTY_6]")(model), put(6, b"")(model)), "tokens that differ"),
        (put(5, b"\xff\xfe"), "tokens in UTF-8"),
        (put(5, b"\xed\xa0\x80"), "tokens in UTF-8"),
        (put(0, b"\xc3"), "tokens in UTF-8"),
        (put(5, b"x" * 100_000), "tokens of at most 2048 bytes, found 100000"),
        (no_tokens, "a vocabulary, found no tokens"),
        (no_token_list, "texts under tokenizer.ggml.tokens, found none"),
        (numbers_for_tokens, "texts under tokenizer.ggml.tokens"),
        (named(b"none"), "a vocabulary without tokens"),
        (named(b"no_vocab"), "a vocabulary without tokens"),
        (named(b"test"), "for llama.cpp's own tests"),
        (named(b"bert"), "of an embedding model"),
        (named(b"t5"), "of an encoder-decoder model"),
        (named(b"llama"), "a token for each of 243 bytes"),
        (named(b"rwkv"), "a token for each of 243 bytes"),
        (named(b"rwkv\0x"), "a token for each of 243 bytes"),
        (sentencepiece(b"<0xC3>"), "such as b'<0xC3>', found none for 1"),
        (sentencepiece(b"<0x07>"), "such as b'<0x07>', found none for 1"),
        (sentencepiece(b"<0x00>"), "such as b'<0x00>', found none for 1"),
        (rwkv(b"\\xc3"), "found none for 1"),
        (rwkv(b"\\n"), "found none for 1"),
        (with_pre(b"whitespace"), "a vocabulary of the kind 'whitespace', found 'gpt2'"),
        # These look odd, and are whole.
        (sentencepiece(), None),
        (sentencepiece(b"<0xC0>"), None),
        (sentencepiece(b"<0xFF>"), None),
        (rwkv(), None),
        (rwkv(b"\\xff"), None),
        (put(5, b""), None),
        (lambda model: (put(5, b"")(model), put(6, b"")(model)), None),
        (put(5, b"\0"), None),
        (put(5, "東京😀".encode()), None),
        (put(5, LONG_TOKEN), None),
    ],
)
def test_a_vocabulary_is_refused_where_it_is_not_whole(
    tmp_path: Path, change: Callable[[EditableGguf], object], expected: str | None
) -> None:
    """All of the first kind passed the check of the header, and crashed llama.cpp."""
    if expected is None:
        vocabulary = open_vocabulary(checked(tmp_path, change))
        assert vocabulary.tokenize("Caf\u00e9 \u6771\u4eac \x07\0", special=False)
        return
    with pytest.raises(ModelFileError, match=expected) as caught:
        checked(tmp_path, change)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_vocabulary_is_checked_before_llama_cpp_opens_it(tmp_path: Path) -> None:
    model = gguf_edit.read(TINY_TARGET)
    put(5, b"a")(model)
    with pytest.raises(ModelFileError, match="tokens that differ"):
        open_vocabulary(model.write(tmp_path / "twice.gguf"))


def test_the_bytes_of_a_long_token_are_whole(tmp_path: Path) -> None:
    """Above 256 bytes, nothing of a token came out."""
    vocabulary = open_vocabulary(checked(tmp_path, put(5, b"x" * 1000)))
    assert vocabulary.piece(5) == b"x" * 1000


def test_a_text_may_make_more_tokens_than_bytes(tmp_path: Path) -> None:
    """A SentencePiece vocabulary without a space of its own spells each one in three bytes."""

    def without_space(model: EditableGguf) -> None:
        gguf_edit.make_sentencepiece(model, [])
        model.items(TOKENS)[259] = b"[taken]"

    vocabulary = open_vocabulary(checked(tmp_path, without_space))
    tokens = vocabulary.tokenize(" " * 100, special=False)
    assert b"".join(map(vocabulary.piece, tokens)).decode() == "\u2581" * 101
