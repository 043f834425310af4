"""The tokenizer of a GGUF file, rebuilt from the file's own metadata."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from alignpro_lite.errors import ModelFileError
from alignpro_lite.gguf import pretokenizers
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.reading import read_numbers, read_texts

_CONTROL, _USER_DEFINED = 3, 4
"""llama.cpp's types of tokens that are found in a text before it is split."""


def byte_level_bpe(gguf: GgufFile) -> Tokenizer:
    """Rebuild a byte-level BPE tokenizer, the kind that a file calls `gpt2`.

    Raises:
        ModelFileError: The file splits texts by a rule that is not known here, or is damaged.
    """
    name = str(gguf.metadata.get("tokenizer.ggml.pre") or "default")
    split = pretokenizers.pre_tokenizer(name)
    if split is None:
        raise ModelFileError(
            f"The tokenizer of {gguf.path} splits by the rule '{name}', which is not known here.",
            "Export from the model's Hugging Face folder instead.",
        )
    tokens = _texts(gguf, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _texts(gguf, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(
        BPE(
            {token: index for index, token in enumerate(tokens)},
            merges,
            ignore_merges=name in pretokenizers.IGNORES_MERGES,
        )
    )
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = ByteLevel()
    kinds = read_numbers(gguf, "tokenizer.ggml.token_type")
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_CONTROL, _USER_DEFINED):
            special = kind == _CONTROL
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=special)])
    return tokenizer


def put_first(tokenizer: Tokenizer, bos: int) -> None:
    """Let a tokenizer begin every text with a token."""
    token = tokenizer.id_to_token(bos)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, bos)]
    )


def _texts(gguf: GgufFile, key: str) -> list[str]:
    return [text.decode("utf-8") for text in read_texts(gguf, key)]
