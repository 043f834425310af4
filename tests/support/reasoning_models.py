"""The tiny model as one that reasons: a template with a switch, tags, and scripted replies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alignpro_lite.decoding.sampling import GivenTokens
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_TARGET, gguf_edit

SETTINGS = TargetSettings(context=512, sequences=4, n_gpu_layers=0, gpu=None, threads=1)
CONTROL, USER_DEFINED = 3, 4
FIRST = 300
"""The first of the tokens that become tags; the tiny model seldom needs them."""

_TURNS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = _TURNS
ALWAYS = _TURNS + "{# thoughts end with </think> #}"
"""Writes the tag itself, and has no switch."""
OPENED = _TURNS + "{% if add_generation_prompt %}<think>\n{% endif %}"
"""The prompt opens the thought, so only its end is in the reply."""
SWITCH = (
    _TURNS + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% endif %}"
)
"""Thinks unless it is told not to."""
SWITCH_OFF = (
    "{% if thinking %}<|im_start|>system\nUse <think>.<|im_end|>\n{% endif %}"
    "{% if thinking is defined and not thinking %}{% endif %}" + _TURNS
)
"""Thinks only if it is told to."""
CHANNELS = (
    "{# <|channel|>analysis<|message|> <|channel|>final<|message|> <|start|>assistant<|end|> #}"
    + _TURNS
)
THINK_TAGS = ("<think>", "</think>")
CHANNEL_TAGS = ("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|return|>", "<|call|>")
"""The last two tell llama.cpp that `<|end|>` ends a channel and not the reply."""


def write(
    path: Path, template: str, tags: Sequence[str] = THINK_TAGS, token_type: int = USER_DEFINED
) -> Path:
    """Write the tiny model with a template, its tags single tokens of a type."""
    model = gguf_edit.read(TINY_TARGET)
    kept = set(model.items(b"tokenizer.ggml.tokens")[:FIRST])
    merges = model.items(b"tokenizer.ggml.merges")
    merges[:] = [
        pair for pair in merges if kept.issuperset([*pair.split(), pair.replace(b" ", b"")])
    ]
    for place, tag in enumerate(tags, FIRST):
        model.items(b"tokenizer.ggml.tokens")[place] = tag.encode()
        model.items(b"tokenizer.ggml.token_type")[place] = token_type
    model.metadata[b"tokenizer.chat_template"] = (gguf_edit.TEXT, template.encode())
    return model.write(path)


def open_target(path: Path, settings: TargetSettings = SETTINGS) -> LlamaTarget:
    """Load what `write` wrote."""
    return LlamaTarget(path, read_header(path), settings)


def script(monkeypatch, replies: Sequence[str]) -> None:
    """Let targets answer with given texts in turn, each up to its end-of-turn token."""
    left = list(replies)

    def scripted(native, sampling):
        text = left.pop(0) if len(left) > 1 else left[0]
        return GivenTokens([*native.tokenize(text, special=True), native.eos])

    monkeypatch.setattr("alignpro_lite.target.target.new_sampler", scripted)
