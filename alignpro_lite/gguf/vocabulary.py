"""Whether the vocabulary of a GGUF file is whole, so that every text can be tokenised.

llama.cpp finds out only at a text that needs what is missing, and then ends the process or never
returns. What it refuses by itself, with a message, is left to it.
Source: `llama-vocab.cpp` of llama.cpp.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf.header import TEXT_MODEL_CURE, GgufFile, clipped
from alignpro_lite.gguf.reading import c_string, read_texts

MAX_TOKEN_BYTES = 1 << 11
"""Twice the longest tokens of published models, 512 spaces in byte-level spelling. llama.cpp
recurses once a byte."""

_OTHER_VOCABULARIES: Mapping[str, str] = {
    "bert": "of an embedding model",
    "t5": "of an encoder-decoder model",
    "none": "without tokens",
    "no_vocab": "without tokens",
    "test": "for llama.cpp's own tests",
}
_TEXT_BYTES = (*range(0xC0), *range(0xC2, 0xF5))
"""Every byte that UTF-8 text can hold."""


def _sentencepiece_byte(byte: int) -> tuple[bytes, ...]:
    return b"<0x%02X>" % byte, bytes([byte])


def _rwkv_byte(byte: int) -> tuple[bytes, ...]:
    return (repr(bytes([byte]))[2:-1].encode(),)


_BYTE_TOKENS: Mapping[str, Callable[[int], tuple[bytes, ...]]] = {
    "llama": _sentencepiece_byte,
    "rwkv": _rwkv_byte,
}
"""The tokens that can stand for a single byte, by the kind of vocabulary. Other kinds do not crash
without: they leave out what they cannot spell."""


def require_whole_vocabulary(gguf: GgufFile) -> None:
    """Refuse a vocabulary that cannot tokenise every text.

    Raises:
        ModelFileError: It has no tokens or the same token twice, a token is not UTF-8 or far too
            long, a byte of text has no token, or no text is ever generated with its kind.
    """
    kind = gguf.metadata.get("tokenizer.ggml.model")
    if kind in _OTHER_VOCABULARIES:
        raise ModelFileError(
            f"Expected a text-generation model, found a vocabulary "
            f"{_OTHER_VOCABULARIES[str(kind)]} in {gguf.path}.",
            TEXT_MODEL_CURE,
        )
    if gguf.metadata.get("tokenizer.ggml.pre") == "whitespace" != kind:
        raise gguf.unsound("a vocabulary of the kind 'whitespace'", clipped(kind))
    tokens = _tokens(gguf)
    distinct = frozenset(tokens)
    if len(distinct) != len(tokens):
        twice, _ = Counter(tokens).most_common(1)[0]
        raise gguf.unsound("tokens that differ", f"{clipped(twice)} twice")
    _require_sound_texts(gguf, tokens)
    if kind in _BYTE_TOKENS:
        _require_bytes(gguf, distinct, _BYTE_TOKENS[str(kind)])


def _tokens(gguf: GgufFile) -> list[bytes]:
    """All tokens, as llama.cpp reads them."""
    texts = read_texts(gguf, "tokenizer.ggml.tokens")
    if all(texts) and b"\0" not in b"".join(texts):
        return texts
    return [c_string(text) or b"[EMPTY_%d]" % place for place, text in enumerate(texts)]


def _require_sound_texts(gguf: GgufFile, tokens: Sequence[bytes]) -> None:
    if not tokens:
        raise gguf.unsound("a vocabulary", "no tokens")
    longest = max(tokens, key=len)
    if len(longest) > MAX_TOKEN_BYTES:
        raise gguf.unsound(f"tokens of at most {MAX_TOKEN_BYTES} bytes", f"{len(longest)}")
    if not _is_utf8(b"\0".join(tokens)):
        broken = next(token for token in tokens if not _is_utf8(token))
        raise gguf.unsound("tokens in UTF-8", clipped(broken))


def _require_bytes(
    gguf: GgufFile, tokens: frozenset[bytes], spelled: Callable[[int], tuple[bytes, ...]]
) -> None:
    missing = [byte for byte in _TEXT_BYTES if tokens.isdisjoint(spelled(byte))]
    if missing:
        raise gguf.unsound(
            f"a token for each of {len(_TEXT_BYTES)} bytes, such as {spelled(missing[0])[0]!r}",
            f"none for {len(missing)} of them",
        )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
