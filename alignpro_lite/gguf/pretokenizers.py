"""The splitting rules of byte-level BPE tokenizers, under llama.cpp's names for them.

A GGUF file names its rule (`tokenizer.ggml.pre`); a Hugging Face `tokenizer.json` spells it out.
This table translates both ways. The regular expressions are facts of the published tokenizers
(GPT-2, Llama 3, Qwen 2, SmolLM) and of llama.cpp's `src/llama-vocab.cpp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _WORDS + r"\p{N}{1,3}" + _REST
_QWEN2 = _WORDS + r"\p{N}" + _REST

# Each rule is the ordered list of its splits; "bytelevel" stands for GPT-2's own expression.
_RULES: dict[str, tuple[str, ...]] = {
    "gpt-2": ("bytelevel",),
    "smollm": ("digits", "bytelevel"),
    "llama-bpe": (_LLAMA3,),
    "qwen2": (_QWEN2,),
}
_ALIASES = {"default": "gpt-2", "llama3": "llama-bpe", "llama-v3": "llama-bpe"}

IGNORES_MERGES = frozenset({"llama-bpe"})
"""Rules under which llama.cpp looks a whole word up in the vocabulary before it tries merges."""


def pre_tokenizer(name: str) -> PreTokenizer | None:
    """The pre-tokenizer that llama.cpp calls `name`, or None for an unknown name."""
    rule = _RULES.get(_ALIASES.get(name, name))
    return None if rule is None else Sequence(list(_steps(rule)))


def rule_name(description: dict[str, Any] | None) -> str | None:
    """llama.cpp's name for the `pre_tokenizer` of a tokenizer.json, or None for an unknown one."""
    found = tuple(_splits(description or {}))
    return next((name for name, rule in _RULES.items() if rule == found), None)


def _steps(rule: tuple[str, ...]) -> Iterator[PreTokenizer]:
    for split in rule:
        if split == "digits":
            yield Digits(individual_digits=True)
        elif split != "bytelevel":
            yield Split(Regex(split), "isolated")
    yield ByteLevel(add_prefix_space=False, use_regex="bytelevel" in rule)


def _splits(description: dict[str, Any]) -> Iterator[str]:
    match description:
        case {"type": "Sequence", "pretokenizers": steps}:
            for step in steps:
                yield from _splits(step)
        case {"type": "Digits", "individual_digits": True}:
            yield "digits"
        case {"type": "Split", "pattern": {"Regex": pattern}}:
            yield pattern
        case {"type": "ByteLevel", "use_regex": True}:
            yield "bytelevel"
        case {"type": "ByteLevel"}:
            return
        case _:
            yield f"unknown: {description.get('type')}"
