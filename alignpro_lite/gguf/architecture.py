"""Whether the numbers of a GGUF file fit together, so that its model can be computed.

llama.cpp compares the shapes of tensors with these numbers and refuses what does not fit. It takes
the numbers themselves on trust, and ends the process at one that makes no sense.
Sources: `llama-model.cpp` of llama.cpp, `ops.cpp` and `binary-ops.cpp` of ggml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from alignpro_lite.gguf.header import GgufFile, MetadataValue, Tensor, clipped

MAX_EXPERTS = 1 << 10
MAX_COUNT = (1 << 31) - 1

_Range = tuple[str, int, int, int]
"""What is counted, how many were found, the least and the most of them."""

_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
_ONE_EXPERT_IS_NONE = ("hunyuan-dense", "hunyuan_vl")
_WITHOUT_ROTATION = ("glm5-next",)
_UNEQUAL_HEADS = ("deepseek4", "dots3note", "hy_v4", "mimo2")
_WHOLE_HEADS_ROTATE = frozenset(
    (
        *("apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cohere2moe", "dbrx"),
        *("deci", "deepseek", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "exaone", "exaone4"),
        *("exaone-moe", "falcon", "granite", "grok", "grovemoe", "hunyuan-moe", "hy_v3"),
        *("internlm2", "jais2", "llada", "llada-moe", "llama", "llama4", "maincoder", "mellum"),
        *("mistral3", "olmo", "olmo2", "olmoe", "orion", "pangu-embedded", "plamo", "qwen2"),
        *("qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "rnd1", "seed_oss"),
        *("smallthinker", "smollm3", "starcoder2", "xverse"),
    )
)
_QUERY = re.compile(r"blk\.(\d{1,3})\.attn_q")
_ATTENTION_OUTPUT = re.compile(r"blk\.(\d{1,3})\.attn_output\.weight")
_ADDED = re.compile(r".*(_norm\.weight|\.bias|rope_(freqs|factors_(long|short))\.weight)")
_WEIGHTS = re.compile(r"(?!.*tid2eid).*\.weight")  # except tables of ids
_NOT_FOR_WEIGHTS = ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")


def require_sound_architecture(gguf: GgufFile) -> None:
    """Refuse numbers and types that no model can have.

    Raises:
        ModelFileError: A count is out of its range, a number is not finite, or a tensor has a type
            that cannot be computed with.
    """
    for what, found, least, most in (*_blocks(gguf), *_experts(gguf), *_heads(gguf)):
        if not least <= found <= most:
            expected = str(least) if least == most else f"{least} to {most}"
            raise gguf.unsound(f"{expected} {what}", found)
    scaling = gguf.metadata.get(f"{gguf.architecture}.rope.scaling.type", "none")
    if scaling not in _ROPE_SCALINGS:
        raise gguf.unsound(f"rope scaling {', '.join(_ROPE_SCALINGS)}", clipped(scaling))
    for key, value in gguf.metadata.items():
        if key.startswith(f"{gguf.architecture}."):
            _require_finite(gguf, key, value)
    for tensor in gguf.tensors:
        _require_computable(gguf, tensor)


def _blocks(gguf: GgufFile) -> Iterator[_Range]:
    n_predicting = gguf.count("nextn_predict_layers", 0)
    yield "layers for prediction", n_predicting, 0, gguf.n_layers - 1
    yield "tokens of context", gguf.context_length, 1, MAX_COUNT
    yield "numbers a token", gguf.embedding_length, 1, MAX_COUNT


def _experts(gguf: GgufFile) -> Iterator[_Range]:
    n_experts = gguf.count("expert_count", 0)
    if n_experts <= 1 and gguf.architecture in _ONE_EXPERT_IS_NONE:
        return
    n_groups = gguf.count("expert_group_count", 0)
    yield "experts", n_experts, 0, MAX_EXPERTS
    yield "experts in use", gguf.n_experts_used, min(1, n_experts), n_experts
    yield "groups of experts", n_groups, 0, max(0, n_experts - 1)
    if n_groups > 1:
        yield "experts without a group", n_experts % n_groups, 0, 0
        yield "groups in use", gguf.count("expert_group_used_count", 0), 1, n_groups - 1


def _heads(gguf: GgufFile) -> Iterator[_Range]:
    asking, attending = _blocks_with(gguf, _QUERY), _blocks_with(gguf, _ATTENTION_OUTPUT)
    for block, (n_head, n_head_kv) in enumerate(zip(gguf.n_head, gguf.n_head_kv, strict=True)):
        yield "query heads", n_head, int(block in asking), gguf.embedding_length
        yield "key-value heads", n_head_kv, 0, gguf.embedding_length
        if n_head_kv:
            yield "query heads without a key-value head", n_head % n_head_kv, 0, 0
            yield "blocks with attention but no queries", len({block} & attending - asking), 0, 0
    if gguf.n_head[0]:
        yield from _head_widths(gguf)


def _head_widths(gguf: GgufFile) -> Iterator[_Range]:
    name, default = gguf.architecture, gguf.embedding_length // gguf.n_head[0]
    key_length = gguf.count("attention.key_length", default)
    value_length = gguf.count("attention.value_length", default)
    latent = f"{name}.attention.kv_lora_rank" in gguf.metadata
    if name not in _UNEQUAL_HEADS and not latent:
        yield "numbers of a value head", value_length, key_length, key_length
    if name not in _WITHOUT_ROTATION:
        rotated = gguf.count("rope.dimension_count", key_length)
        least = key_length if name in _WHOLE_HEADS_ROTATE else 2
        local_length = gguf.count("attention.key_length_swa", key_length)
        rotated_locally = gguf.count("rope.dimension_count_swa", rotated)
        yield "rotated numbers of a head", rotated, least, key_length
        yield "rotated numbers of a head in a window", rotated_locally, 2, local_length
        yield "rotated numbers without a partner", rotated % 2 + rotated_locally % 2, 0, 0


def _blocks_with(gguf: GgufFile, tensor_name: re.Pattern[str]) -> frozenset[int]:
    found = (tensor_name.match(tensor.name) for tensor in gguf.tensors)
    return frozenset(int(match[1]) for match in found if match)


def _require_finite(gguf: GgufFile, key: str, value: MetadataValue) -> None:
    for number in value if isinstance(value, tuple) else (value,):
        if not isinstance(number, float):
            continue
        if not math.isfinite(number) or (number < 0 and key.endswith("epsilon")):
            raise gguf.unsound(f"a usable number under {key}", number)


def _require_computable(gguf: GgufFile, tensor: Tensor) -> None:
    if _ADDED.fullmatch(tensor.name):
        if tensor.type != "F32":
            raise gguf.unsound(f"F32 in tensor {clipped(tensor.name)}", tensor.type)
    elif tensor.type in _NOT_FOR_WEIGHTS and _WEIGHTS.fullmatch(tensor.name):
        raise gguf.unsound(f"weights in tensor {clipped(tensor.name)}", tensor.type)
