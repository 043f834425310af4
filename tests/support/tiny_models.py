"""Small random-weight models in the real configuration classes, as Hugging Face folders.

Run `python -m tests.support.tiny_models OUT` to write one folder per architecture.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence as SequenceOf
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Tokenizer,
    GPTNeoConfig,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 384
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BOS, EOS = 0, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The splitting rule of the published Qwen 2 tokenizers.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SENTENCES = [
    "The small model rewrites the prompt and the large model answers it.",
    "Write a short letter to the council about the bridge over the river.",
    "What is 12 + 345? It's 357, isn't it? She said that they'll check it again.",
    "def add(first, second):\n    return first + second\n",
    "Explain why the sky is blue, in three plain sentences, without formulas.",
    "Übersetze den Satz: « Où est la gare ? » 東京 😀",
]

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": BOS,
    # Wide enough that the most likely token is a decision and not noise.
    "initializer_range": 0.2,
}


def configurations() -> dict[str, PretrainedConfig]:
    """One small configuration per architecture that the export is held to."""
    return {
        "llama": LlamaConfig(**_SHAPE, tie_word_embeddings=True),
        "qwen2": Qwen2Config(**_SHAPE, tie_word_embeddings=True),
        "qwen3": Qwen3Config(**_SHAPE, head_dim=32, tie_word_embeddings=False),
        "phi3": Phi3Config(**_SHAPE, original_max_position_embeddings=512),
        # As in Phi-3.5: two rotary tables, the short one up to the original length.
        "phi3-long": Phi3Config(
            **_SHAPE | {"max_position_embeddings": 8192},
            original_max_position_embeddings=512,
            rope_scaling={
                "type": "longrope",
                "short_factor": [1.0 + step / 10 for step in range(8)],
                "long_factor": [2.0 + step / 10 for step in range(8)],
            },
        ),
        "gemma3": Gemma3TextConfig(
            **_SHAPE, head_dim=32, query_pre_attn_scalar=32, sliding_window=32
        ),
    }


def unfused_configuration() -> PretrainedConfig:
    """An architecture outside the fast path, for the reference export."""
    return GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=512,
        bos_token_id=BOS,
        eos_token_id=EOS,
        initializer_range=0.2,
    )


def write_model(folder: Path, config: PretrainedConfig, seed: int = 0) -> Path:
    """Write a random-weight model with its tokenizer and return the folder."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=[EOS, BOS])
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Train a byte-level BPE tokenizer on the sentences and write it into the folder."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = Sequence(
        [Split(Regex(QWEN2_SPLIT), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL_TOKENS[BOS],
        eos_token=SPECIAL_TOKENS[EOS],
        chat_template=CHAT_TEMPLATE,
    )
    wrapped.save_pretrained(folder)
    # The converter's Phi-3 class takes a byte-level vocabulary only under this name.
    path = folder / "tokenizer_config.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            PreTrainedTokenizerFast.__name__, GPT2Tokenizer.__name__
        ),
        encoding="utf-8",
    )


def write_adapter(
    folder: Path, base: Path, seed: int = 1, modules: SequenceOf[str] = ("q_proj", "v_proj")
) -> Path:
    """Write a LoRA adapter with random weights for the model in `base` and return the folder."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    settings = LoraConfig(
        r=4,
        target_modules=list(modules),
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    get_peft_model(model, settings).save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    for name, configuration in configurations().items():
        print(write_model(Path(sys.argv[1]) / name, configuration))
