"""What the header of a GGUF model says: its tensors, its metadata, and the numbers in them.

Sources of the format: `docs/gguf.md` of ggml for the keys, `ggml.h` for the tensor types.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from alignpro_lite.errors import ModelFileError

MAX_LAYERS = 1 << 9

TEXT_MODEL_CURE = (
    "Give the .gguf file of a text-generation model; `alignpro-lite models list` names some."
)
WHOLE_FILE_CURE = (
    "Fetch it again, for example with `alignpro-lite models pull`, or convert the model again."
)

TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}
"""Name, weights per block and bytes per block of each ggml type, by its id."""


@dataclass(frozen=True)
class ArraySummary:
    """An array that is counted instead of read, such as the vocabulary.

    Attributes:
        count: How many items it has.
        of_text: Whether the items are strings rather than numbers.
        offset: Bytes from the start of its file to its first item.
    """

    count: int
    of_text: bool
    offset: int


Number = int | float | bool
MetadataValue = Number | str | tuple[Number, ...] | ArraySummary


@dataclass(frozen=True)
class Tensor:
    """One tensor of a GGUF file.

    Attributes:
        name: Its name, for example `blk.0.attn_q.weight`.
        shape: Its dimensions in the order of ggml, the contiguous dimension first.
        type: The name of its ggml type, for example `Q4_K`.
        n_bytes: Size of its data.
        offset: Bytes from the start of its file to its data.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    n_bytes: int
    offset: int


@dataclass(frozen=True)
class GgufFile:
    """The header of a GGUF model, and of all its parts if it is split.

    Attributes:
        path: The file, or the first of its parts.
        version: Version of the format, 2 or 3.
        architecture: `general.architecture`, "" if the file names none.
        metadata: All key-value pairs. Arrays with a number for each layer are tuples, all other
            arrays are an `ArraySummary`.
        tensors: The tensors in the order of the file.
    """

    path: Path
    version: int
    architecture: str
    metadata: Mapping[str, MetadataValue]
    tensors: tuple[Tensor, ...]

    @property
    def chat_template(self) -> str | None:
        """The chat template, Jinja source that must be rendered in a sandbox."""
        template = self.metadata.get("tokenizer.chat_template")
        return template if isinstance(template, str) else None

    @property
    def vocab_size(self) -> int:
        """How many tokens the model knows: the width of its logits."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArraySummary):
            return tokens.count
        return self.count("vocab_size")

    @property
    def n_layers(self) -> int:
        """How many blocks the model has, without the output layer."""
        n_layers = self.count("block_count")
        if not 1 <= n_layers <= MAX_LAYERS:
            raise self._unusable("block_count", f"{n_layers}, outside 1 to {MAX_LAYERS}")
        return n_layers

    @property
    def context_length(self) -> int:
        """How many tokens of context the model was trained for."""
        context_length = self.count("context_length")
        if context_length == 0:
            raise self._unusable("context_length", "0")
        return context_length

    @property
    def embedding_length(self) -> int:
        """The width of the residual stream."""
        return self.count("embedding_length")

    @property
    def feed_forward_length(self) -> int:
        """The width of the widest dense feed-forward layer, 0 if there is none."""
        return max(self._per_layer("feed_forward_length", (0,) * self.n_layers))

    @property
    def n_head(self) -> tuple[int, ...]:
        """Query heads of each layer, 0 where a layer has no attention."""
        return self._per_layer("attention.head_count", (0,) * self.n_layers)

    @property
    def n_head_kv(self) -> tuple[int, ...]:
        """Key-value heads of each layer; by default, as many as query heads."""
        return self._per_layer("attention.head_count_kv", self.n_head)

    @property
    def key_length(self) -> int:
        """The width of one key head."""
        return self.count("attention.key_length", self._default_head_length)

    @property
    def value_length(self) -> int:
        """The width of one value head."""
        return self.count("attention.value_length", self._default_head_length)

    @property
    def kv_widths(self) -> tuple[int, ...]:
        """Numbers that a key-value head of each layer stores for one token, 0 without a cache."""
        latent = f"{self.architecture}.attention.key_length_mla" in self.metadata
        plain = self.key_length + (0 if latent else self.value_length)
        local = self.count("attention.key_length_swa", self.key_length) + self.count(
            "attention.value_length_swa", self.value_length
        )
        key = "attention.sliding_window_pattern"
        pattern = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(pattern, tuple) and len(pattern) == self.n_layers:
            widths = tuple(local if is_local else plain for is_local in pattern)
        else:  # llama.cpp knows which layers have a window; the wider of both is enough for each
            widths = (max(plain, local) if not latent else plain,) * self.n_layers
        n_own = self.n_layers - self.count("attention.shared_kv_layers", 0)
        return tuple(width if layer < n_own else 0 for layer, width in enumerate(widths))

    @property
    def n_experts_used(self) -> int:
        """The most experts that compute a token in a layer, 0 for a dense model."""
        return max(self._per_layer("expert_used_count", (0,) * self.n_layers))

    @property
    def expert_feed_forward_length(self) -> int:
        """The width of one expert."""
        return self.count("expert_feed_forward_length", self.feed_forward_length)

    @property
    def _default_head_length(self) -> int:
        return self.embedding_length // (max(self.n_head) or 1)

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of the architecture, for example `block_count`.

        Raises:
            ModelFileError: It is something else, or missing without a default.
        """
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if not is_count(value):
            raise self._unusable(key, "missing" if value is None else clipped(value))
        return value

    def _per_layer(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A number for each layer; the file may state a single number for all of them."""
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        if is_count(value):
            return (value,) * self.n_layers
        if not isinstance(value, tuple):
            raise self._unusable(key, clipped(value))
        counts = tuple(item for item in value if is_count(item))
        if len(counts) != len(value) or len(counts) != self.n_layers:
            raise self._unusable(key, f"{len(value)} items for {self.n_layers} layers")
        return counts

    def unsound(self, expected: str, found: object) -> ModelFileError:
        """The error about a file that llama.cpp would crash on."""
        return ModelFileError(
            f"{self.path} is damaged: expected {expected}, found {found}.", WHOLE_FILE_CURE
        )

    def _unusable(self, key: str, found: str) -> ModelFileError:
        return ModelFileError(
            f"{self.path} needs a whole number for {clipped(f'{self.architecture}.{key}')}, "
            f"found {found}.",
            TEXT_MODEL_CURE,
        )


def is_count(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number from 0 up; True and False are not numbers."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def clipped(value: object) -> str:
    """A value from a file, fit to print: on one line, and only the start of a long one."""
    return f"{value!r:.80}"
