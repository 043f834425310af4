"""How much memory each model takes: arithmetic on a GGUF header that asks no engine.

What a target takes, in bytes (sources: llama.cpp's `llama-model.cpp` for what goes where, its own
buffer reports for the estimates):

- KV cache, in f16: 2 x context x sum over layers of n_head_kv x (key_length + value_length). The
  context is padded to 256. Layers with a sliding window hold the whole context too (llama.cpp's
  `swa_full`, without which cached prompts could not be continued), some with heads of another
  width. Layers that use another one's cache have none. Latent attention stores keys alone. The
  small states of recurrent layers are covered by the margin.
- Weights: once. Those that llama.cpp copies for faster kernels are read from the file, not mapped,
  which would hold them twice (1.8 instead of 1.2 GB for Qwen2.5-Coder-1.5B in Q4_K_M); where memory
  is too short for that they stay mapped and are not copied. The input embeddings stay in RAM.
  `n_gpu_layers = k` puts the output layer and the last k - 1 blocks on the GPU, so k = n_layers + 1
  is everything. Tied embeddings are copied to the GPU if they also serve as output layer.
- Compute buffer, with flash attention: 4 x (micro_batch x (2 x feed_forward_length
  + 4 x embedding_length + context) + sequences x vocabulary): the inside of a feed-forward layer, a
  few residual streams, the attention mask, and the logits, of which RAM holds a second copy. A
  prompt is multiplied on the GPU even by blocks in RAM, so a partly offloaded model also needs room
  on the GPU for a copy of the largest tensor that stayed in RAM.
- Margin: 5 % of the free memory, at least 300 MB, stays free; the drivers' own contexts live in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.hardware.device import LlamaDevices

CONTEXT_STEP = 256
MIN_MARGIN = 300_000_000

_BLOCK_NAME = re.compile(r"blk\.(\d{1,5})\.")
_REORDERED_TYPES = frozenset(
    (
        *("Q1_0", "Q2_K", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K", "Q8_0"),
        *("IQ4_NL", "IQ4_XS", "MXFP4"),
    )
)
"""Those of llama.cpp's `repack.cpp` and `amx/common.h`, whichever the processor has kernels for."""
_INPUT_TENSORS = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")


@dataclass(frozen=True)
class Footprint:
    """Bytes that a plan takes on one device.

    Attributes:
        weight_bytes: Weights of the target.
        kv_bytes: KV cache of the target.
        compute_bytes: Estimate of the target's compute buffer.
        prompter_bytes: All of the prompter.
    """

    weight_bytes: int = 0
    kv_bytes: int = 0
    compute_bytes: int = 0
    prompter_bytes: int = 0

    @property
    def allocated_bytes(self) -> int:
        """Everything but the weights, which a file in RAM can back."""
        return self.kv_bytes + self.compute_bytes + self.prompter_bytes

    @property
    def total_bytes(self) -> int:
        """Everything."""
        return self.weight_bytes + self.allocated_bytes


@dataclass(frozen=True)
class PrompterNeeds:
    """What the prompter needs, and where it can run.

    Attributes:
        n_bytes: Weights, KV buffers and activations together, without what the target has anyway.
        built_for_cuda: Its graph has kernels for CUDA.
        engine_has_cuda: The installed onnxruntime can run on CUDA.
        target_context: Tokens that it takes of the target's context, 0 unless it is the target.
    """

    n_bytes: int
    built_for_cuda: bool = False
    engine_has_cuda: bool = False
    target_context: int = 0


@dataclass(frozen=True)
class TargetNeeds:
    """What the target needs, and where it can run.

    Attributes:
        gguf: Its header.
        devices: What the installed llama.cpp can run on.
        micro_batch: Prompt tokens that are computed at once (`n_ubatch`).
        sequences: Sequences that are decoded together, each with a row of logits.
    """

    gguf: GgufFile
    devices: LlamaDevices
    micro_batch: int = 512
    sequences: int = 1

    def on_gpu(self, n_gpu_layers: int, context: int) -> Footprint:
        """Memory on the GPU for a number of layers there, as llama.cpp counts them."""
        if n_gpu_layers == 0:
            return Footprint()
        first = self.gguf.n_layers + 1 - n_gpu_layers
        left_in_ram = (max(sizes) for sizes in self._blocks[:first])
        return Footprint(
            weight_bytes=self._output_bytes + sum(map(sum, self._blocks[first:])),
            kv_bytes=self._kv_bytes(context, slice(first, None)),
            compute_bytes=self._buffer(self._block_width, context) + max(left_in_ram, default=0),
        )

    def in_ram(self, n_gpu_layers: int, context: int) -> Footprint:
        """Memory in RAM for the same number of layers on the GPU."""
        first = self.gguf.n_layers + 1 - max(n_gpu_layers, 1)
        # With every block on the GPU only the embedded tokens and the mask are left.
        width = self._block_width if first else self.gguf.embedding_length
        weights = self._input_bytes + sum(map(sum, self._blocks[:first]))
        buffer = self._buffer(width, context)
        if n_gpu_layers == 0:
            weights += self._output_bytes - self._tied_bytes
            buffer += self._logit_bytes
        return Footprint(weights, self._kv_bytes(context, slice(first)), buffer)

    @cached_property
    def _blocks(self) -> list[list[int]]:
        """Sizes of the tensors of each block."""
        blocks: list[list[int]] = [[0] for _ in range(self.gguf.n_layers)]
        for tensor in self.gguf.tensors:
            match = _BLOCK_NAME.match(tensor.name)
            if match and int(match[1]) < len(blocks):
                blocks[int(match[1])].append(tensor.n_bytes)
        return blocks

    @cached_property
    def _input_bytes(self) -> int:
        """Weights that always stay in RAM."""
        return sum(t.n_bytes for t in self.gguf.tensors if t.name.startswith(_INPUT_TENSORS))

    @cached_property
    def _tied_bytes(self) -> int:
        """Size of the input embeddings if they also serve as output layer, else 0."""
        sizes = {tensor.name: tensor.n_bytes for tensor in self.gguf.tensors}
        return 0 if "output.weight" in sizes else sizes.get("token_embd.weight", 0)

    @cached_property
    def _output_bytes(self) -> int:
        """Weights of the output layer on a GPU: all that is neither input nor block, and a copy."""
        return (
            self.weight_bytes - self._input_bytes - sum(map(sum, self._blocks)) + self._tied_bytes
        )

    @property
    def weight_bytes(self) -> int:
        """Size of all weights."""
        return sum(tensor.n_bytes for tensor in self.gguf.tensors)

    @property
    def is_reordered(self) -> bool:
        """Whether llama.cpp copies weights into another order for some processor's kernels."""
        return any(
            tensor.type in _REORDERED_TYPES and _BLOCK_NAME.match(tensor.name)
            for tensor in self.gguf.tensors
        )

    @property
    def kv_token_bytes(self) -> int:
        """What one token takes in the KV cache."""
        return sum(self._kv_block_bytes)

    @property
    def undistorted_context(self) -> int | None:
        """Tokens of context up to which a "longrope" model works as it was first trained.

        llama.cpp takes the factors for long texts, which short ones suffer from, as soon as the
        whole context is longer. None for other models.
        """
        if not any("rope_factors_long" in tensor.name for tensor in self.gguf.tensors):
            return None
        return self.gguf.count("rope.scaling.original_context_length", self.gguf.context_length)

    @cached_property
    def _kv_block_bytes(self) -> list[int]:
        """What one token takes in the KV cache of each block."""
        heads, widths = self.gguf.n_head_kv, self.gguf.kv_widths
        return [2 * count * width for count, width in zip(heads, widths, strict=True)]

    @cached_property
    def _block_width(self) -> int:
        """Numbers that a block holds for one token.

        Gate and up projection, or every expert's output in a mixture, and the residual streams.
        """
        gguf = self.gguf
        expert = 2 * gguf.expert_feed_forward_length + gguf.embedding_length
        feed_forward = max(2 * gguf.feed_forward_length, gguf.n_experts_used * expert)
        return feed_forward + 4 * gguf.embedding_length

    @cached_property
    def _logit_bytes(self) -> int:
        return 4 * self.sequences * self.gguf.vocab_size

    def _kv_bytes(self, context: int, blocks: slice) -> int:
        return _padded(context) * sum(self._kv_block_bytes[blocks])

    def _buffer(self, width: int, context: int) -> int:
        """Compute buffer for so many numbers a token, without copies of tensors."""
        rows = min(self.micro_batch, _padded(context))
        return 4 * rows * (width + _padded(context)) + self._logit_bytes


def usable_bytes(free_bytes: int) -> int:
    """What a plan may take of the free memory of a device: all but the margin."""
    return max(0, free_bytes - max(free_bytes // 20, MIN_MARGIN))


def format_bytes(n_bytes: int) -> str:
    """A size for people, in the decimal units of hubs and disks: `5.1 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes} B"


def _padded(context: int) -> int:
    return -(-context // CONTEXT_STEP) * CONTEXT_STEP
