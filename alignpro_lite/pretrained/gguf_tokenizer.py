"""Rebuild the tokenizer of a GGUF file from the file's own metadata.

The tokenizer that transformers derives from a GGUF file can swap special ids and drop the splitting
rule (both seen with SmolLM2), so it is rebuilt here and compared with llama.cpp's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import transformers.utils.import_utils as transformers_imports
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer

from alignpro_lite.decoding.llamacpp import LlamaModel
from alignpro_lite.errors import ExportError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.gguf.tokenizer import byte_level_bpe, put_first
from alignpro_lite.pretrained.folder import lone_file

# Whitespace runs, digits, scripts, emoji, quotes and byte fallbacks: where tokenizers differ.
_HARD_TEXTS = (
    " leading  and   inner\t\ttabs\n\n\n nl \r\n x  ",
    "12345 3.14 0x1F ½ ² Ⅷ ٣ 1a2b",
    "it's don't WE'RE I'll y'all 'tis",
    "naïve café e\u0301 Ünïcödé ß",
    "日本語 漢字 한국어 Русский العربية हिन्दी",
    "😀👩\u200d👩\u200d👧🏽 \u00a0nbsp\u2003em \ufeff",
    "__init__(self, **kw): return {}; // <a href='#'>",
)


@contextmanager
def recognised_by_transformers() -> Iterator[None]:
    """Let transformers use the `gguf` module that comes with llama.cpp's converter.

    Transformers looks for a distribution named `gguf`; the same module is installed here as part of
    the converter, so the check fails although the import works.
    """
    saved = transformers_imports._is_gguf_available, transformers_imports._gguf_version
    transformers_imports._is_gguf_available = True
    transformers_imports._gguf_version = transformers_imports.GGUF_MIN_VERSION
    try:
        yield
    finally:
        transformers_imports._is_gguf_available, transformers_imports._gguf_version = saved


def rebuild_tokenizer(path: Path, reference: LlamaModel) -> Tokenizer:
    """Rebuild the tokenizer of a GGUF file.

    Args:
        path: The file.
        reference: The same file, opened by llama.cpp.

    Returns:
        A fast tokenizer that gives the same ids as llama.cpp.

    Raises:
        ModelFileError: The tokenizer splits texts by an unknown rule.
        ExportError: The tokenizer disagrees with llama.cpp.
    """
    gguf = read_header(path)
    if gguf.metadata.get("tokenizer.ggml.model") == "gpt2":
        tokenizer = byte_level_bpe(gguf)
    else:
        tokenizer = _derived_by_transformers(path)
    _strip_alike(tokenizer, reference)
    _require_agreement(path, tokenizer, reference)
    if reference.bos is not None and reference.add_bos:
        put_first(tokenizer, reference.bos)
    return tokenizer


def _derived_by_transformers(path: Path) -> Tokenizer:
    with recognised_by_transformers(), lone_file(path) as view:
        derived = AutoTokenizer.from_pretrained(
            view, gguf_file=path.name, local_files_only=True, trust_remote_code=False
        )
    tokenizer: Tokenizer = derived.backend_tokenizer
    return tokenizer


def _strip_alike(tokenizer: Tokenizer, reference: LlamaModel) -> None:
    """Let tokens take the white space beside them as in llama.cpp, which goes by a model's name."""
    for token, added in tokenizer.get_added_tokens_decoder().items():
        strips = reference.strips(token)
        if strips != (added.lstrip, added.rstrip):
            like = AddedToken(
                added.content,
                single_word=added.single_word,
                lstrip=strips[0],
                rstrip=strips[1],
                normalized=added.normalized,
                special=added.special,
            )
            tokenizer.add_tokens([like])


def _require_agreement(path: Path, tokenizer: Tokenizer, reference: LlamaModel) -> None:
    prose = resources.files("alignpro_lite.pretrained").joinpath("parity_text.txt")
    for text in (*_HARD_TEXTS, prose.read_text(encoding="utf-8")):
        if tokenizer.encode(text, add_special_tokens=False).ids != reference.tokenize(
            text, special=True
        ):
            raise ExportError(
                f"The tokenizer rebuilt from {path} disagrees with llama.cpp on {text[:40]!r}.",
                "Export from the model's Hugging Face folder instead.",
            )
