"""One plan that places both models on the hardware there is.

Planning is arithmetic on a GGUF header: it asks no engine and touches no device.

How much memory a target takes (bytes; sources: llama.cpp's `llama-model.cpp`
for what goes where, its own buffer reports for the estimates):

- KV cache, in f16: 2 bytes x context x sum over layers of
  n_head_kv x (key_length + value_length). The context is padded to 256. Layers
  with a sliding window count in full, so the sum is an upper bound for them;
  the small states of recurrent layers are left to the margin.
- Weights: the input embeddings stay in RAM. `n_gpu_layers = k` puts the output
  layer and the last k - 1 blocks on the GPU, so k = n_layers + 1 is everything.
  Tied embeddings are copied to the GPU when they serve as output layer.
- Compute buffer: 4 bytes x (micro_batch x (2 x feed_forward_length
  + 4 x embedding_length + context) + sequences x vocabulary), with flash
  attention: the inside of a feed-forward layer, a few residual streams, the
  attention mask, and the logits, which RAM holds a second time. Blocks in RAM
  are multiplied on the GPU when a prompt is read, so a partly offloaded model
  also needs room there for a copy of the largest tensor that stayed behind.
- Margin: 5 % of what is free, at least 300 MB, is left alone; the drivers' own
  contexts live in it.

Who goes first: the target takes the GPU, the prompter takes what is left of it.
A prompter is small and fast enough on a CPU, while each layer of the target
that leaves the GPU slows down every token of the answer. When both fit, both
are on the GPU. The context is lowered only when nothing else makes the model
fit: layers can live in RAM, tokens beyond the context cannot live anywhere.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from alignpro_lite.errors import DeviceError, InputError
from alignpro_lite.gguf.header import GgufFile, Tensor
from alignpro_lite.hardware.system import Gpu, Hardware, Ram

Device = Literal["cuda", "cpu"]

DEFAULT_CONTEXT = 2048
MIN_CONTEXT = 512
CONTEXT_STEP = 256
MIN_MARGIN = 300_000_000

LLAMA_CUDA_CURE = (
    'Run `CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir '
    "llama-cpp-python`"
)
ONNX_CUDA_CURE = 'Run `pip install "alignpro-lite[cuda]"`'

_INPUT_TENSORS = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")


@dataclass(frozen=True)
class DeviceRequest:
    """What the user asked for.

    Attributes:
        device: `auto` takes a GPU when there is one, the others insist.
        n_gpu_layers: Layers of the target on the GPU as llama.cpp counts them
            (the output layer is one of them), -1 for all, None for as many as fit.
        ctx: Tokens of context, None for what suits the model and the memory.
    """

    device: Literal["auto", "cuda", "cpu"] = "auto"
    n_gpu_layers: int | None = None
    ctx: int | None = None

    @property
    def insists_on_gpu(self) -> bool:
        """Whether a target on the CPU would not be what was asked for."""
        return self.device == "cuda" or self.n_gpu_layers not in (None, 0)


@dataclass(frozen=True)
class EngineSupport:
    """What the installed engines were built for.

    Attributes:
        llama_gpu_offload: llama-cpp-python can put layers on a GPU.
        onnx_cuda: onnxruntime can make a session on CUDA.
    """

    llama_gpu_offload: bool
    onnx_cuda: bool


@dataclass(frozen=True)
class Batching:
    """How the target's engine works, which sizes its buffers.

    Attributes:
        micro_batch: Prompt tokens that are computed at once (`n_ubatch`).
        sequences: Sequences that run together, one row of logits each.
    """

    micro_batch: int = 512
    sequences: int = 1


@dataclass(frozen=True)
class PrompterNeeds:
    """What the prompter's bundle asks for.

    Attributes:
        n_bytes: Weights, KV buffers and activations together.
        cuda_capable: The bundle's graph has kernels on CUDA.
    """

    n_bytes: int
    cuda_capable: bool


@dataclass(frozen=True)
class Footprint:
    """Bytes that a plan takes on one device.

    Attributes:
        weight_bytes: Weights of the target; in RAM they are mapped from the file.
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
        """Everything that no file backs when it lies in RAM."""
        return self.kv_bytes + self.compute_bytes + self.prompter_bytes

    @property
    def total_bytes(self) -> int:
        """Everything."""
        return self.weight_bytes + self.allocated_bytes


@dataclass(frozen=True)
class Plan:
    """Where both models run.

    Attributes:
        device: `cuda` when at least one layer of the target is on a GPU.
        gpu: The GPU that either model uses, None when none does.
        n_gpu_layers: What to give llama.cpp, 0 to n_layers + 1.
        n_layers: Blocks of the target, without its output layer.
        context: Tokens of context, shared by all sequences that run together.
        prompter_device: Where the prompter runs, None without a prompter.
        on_gpu: What the GPU holds.
        on_cpu: What RAM holds.
        threads: Threads for either engine. Those of llama.cpp spin, so there
            are never more of them than cores.
        notes: Sentences that the user should see once.
    """

    device: Device
    gpu: Gpu | None
    n_gpu_layers: int
    n_layers: int
    context: int
    prompter_device: Device | None
    on_gpu: Footprint
    on_cpu: Footprint
    threads: int
    notes: tuple[str, ...]

    @property
    def kv_bytes(self) -> int:
        """The whole KV cache of the target."""
        return self.on_gpu.kv_bytes + self.on_cpu.kv_bytes


def make_plan(
    request: DeviceRequest,
    gguf: GgufFile,
    prompter: PrompterNeeds | None,
    support: EngineSupport,
    hardware: Hardware,
    batching: Batching = Batching(),
) -> Plan:
    """Decide which layers go where, how long the context is and where the prompter runs.

    The arithmetic and the choices are explained at the top of this module.

    Args:
        request: What the user asked for.
        gguf: The header of the target.
        prompter: What the prompter needs, None when the target runs alone.
        support: What the engines were built for.
        hardware: What there is.
        batching: How the target's engine works.

    Returns:
        A plan that leaves the margin free on every device.

    Raises:
        InputError: The request contradicts itself or the model.
        DeviceError: The request cannot be had on this hardware with these engines.
        ModelFileError: The header lacks a number that is needed.
    """
    _check_request(request, gguf)
    if request.insists_on_gpu:
        _require_cuda(request, prompter, support, hardware)
    gpu = None if request.device == "cpu" else _roomiest(hardware.gpus)
    case = _Case(request, gguf, prompter, support, hardware.ram, gpu)
    layout = _choose_layout(case, _measure(gguf, batching))
    return Plan(
        device="cuda" if layout.n_gpu_layers else "cpu",
        gpu=gpu if layout.on_gpu.total_bytes else None,
        n_gpu_layers=layout.n_gpu_layers,
        n_layers=gguf.n_layers,
        context=layout.context,
        prompter_device=_prompter_device(prompter, layout),
        on_gpu=layout.on_gpu,
        on_cpu=layout.on_cpu,
        threads=hardware.cores,
        notes=tuple(_notes(case, layout)),
    )


def readable(n_bytes: int) -> str:
    """A size for people, in the binary units that GPU vendors use: `5.1 GiB`."""
    gib = n_bytes / 2**30
    return f"{gib:.1f} GiB" if gib >= 1 else f"{n_bytes / 2**20:.0f} MiB"


# The request


def _check_request(request: DeviceRequest, gguf: GgufFile) -> None:
    layers, ctx = request.n_gpu_layers, request.ctx
    if layers is not None and layers < -1:
        raise InputError(
            f"--n-gpu-layers is {layers}, expected -1 (all), 0 or more.", "Use --n-gpu-layers -1."
        )
    if request.device == "cpu" and layers:
        raise InputError(
            f"--device cpu contradicts --n-gpu-layers {layers}.", "Leave one of them out."
        )
    if request.device == "cuda" and layers == 0:
        raise InputError("--device cuda contradicts --n-gpu-layers 0.", "Leave one of them out.")
    if ctx is not None and not 1 <= ctx <= gguf.context_length:
        raise InputError(
            f"--ctx is {ctx}, but {gguf.path.name} was trained for 1 to "
            f"{gguf.context_length} tokens.",
            f"Use --ctx {gguf.context_length} or less.",
        )


def _require_cuda(
    request: DeviceRequest,
    prompter: PrompterNeeds | None,
    support: EngineSupport,
    hardware: Hardware,
) -> None:
    """Refuse a request for CUDA that would quietly end on the CPU."""
    if not hardware.gpus:
        raise DeviceError(
            "A CUDA device was asked for, but no NVIDIA GPU was found.",
            "Check the driver with `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use --device auto.",
        )
    if not support.llama_gpu_offload:
        raise DeviceError(
            "A CUDA device was asked for, but llama-cpp-python was built without CUDA.",
            f"{LLAMA_CUDA_CURE}, or use --device cpu.",
        )
    needs_onnx = prompter is not None and prompter.cuda_capable and request.device == "cuda"
    if needs_onnx and not support.onnx_cuda:
        raise DeviceError(
            "A CUDA device was asked for, but onnxruntime cannot use CUDA.",
            f"{ONNX_CUDA_CURE}, or use --device auto.",
        )


def _roomiest(gpus: tuple[Gpu, ...]) -> Gpu | None:
    return max(gpus, key=lambda gpu: gpu.free_bytes, default=None)


@dataclass(frozen=True)
class _Case:
    """One question to the planner, its GPU chosen (None when none may be used)."""

    request: DeviceRequest
    gguf: GgufFile
    prompter: PrompterNeeds | None
    support: EngineSupport
    ram: Ram
    gpu: Gpu | None

    @property
    def all_layers(self) -> int:
        """How llama.cpp counts all blocks and the output layer."""
        return self.gguf.n_layers + 1

    @property
    def wanted_layers(self) -> range:
        """The numbers of GPU layers that satisfy the request."""
        layers = self.request.n_gpu_layers
        if layers is None:
            return range(1 if self.request.device == "cuda" else 0, self.all_layers + 1)
        layers = self.all_layers if layers == -1 else min(layers, self.all_layers)
        return range(layers, layers + 1)

    @property
    def wanted_context(self) -> int:
        """The context to have when there is memory for it."""
        return self.request.ctx or min(self.gguf.context_length, DEFAULT_CONTEXT)

    @property
    def shortest_context(self) -> int:
        """The context below which the request counts as not satisfied."""
        return self.request.ctx or min(self.gguf.context_length, MIN_CONTEXT)

    @property
    def prompter_bytes(self) -> int:
        return self.prompter.n_bytes if self.prompter else 0

    @property
    def target_room(self) -> int:
        """Bytes of the GPU that the target may take."""
        return _budget(self.gpu.free_bytes) if self.gpu and self.support.llama_gpu_offload else 0

    @property
    def prompter_room(self) -> int:
        """Bytes of the GPU that the target and the prompter may take together."""
        capable = self.prompter and self.prompter.cuda_capable and self.support.onnx_cuda
        return _budget(self.gpu.free_bytes) if self.gpu and capable else 0


def _budget(free_bytes: int) -> int:
    return max(0, free_bytes - max(free_bytes // 20, MIN_MARGIN))


# What a model costs


@dataclass(frozen=True)
class _Costs:
    """What the parts of a target cost, in bytes; one item a block where there are several.

    Attributes:
        blocks: Weights of each block.
        largest: The largest tensor of each block.
        kv_per_token: KV cache of each block for one token.
        inputs: Weights that always stay in RAM.
        output: Weights of the output layer on a GPU.
        copied: How much of `output` is a copy of input embeddings.
        embedding: Width of the residual stream, in numbers.
        feed_forward: Widest activation inside a block, in numbers.
        micro_batch: Prompt tokens that are computed at once.
        logits: Logits of all sequences.
    """

    blocks: tuple[int, ...]
    largest: tuple[int, ...]
    kv_per_token: tuple[int, ...]
    inputs: int
    output: int
    copied: int
    embedding: int
    feed_forward: int
    micro_batch: int
    logits: int

    def on_gpu(self, n_gpu_layers: int, context: int) -> Footprint:
        if n_gpu_layers == 0:
            return Footprint()
        first = len(self.blocks) + 1 - n_gpu_layers
        buffers = self._activations(self.feed_forward + 4 * self.embedding, context) + self.logits
        return Footprint(
            weight_bytes=self.output + sum(self.blocks[first:]),
            kv_bytes=_padded(context) * sum(self.kv_per_token[first:]),
            compute_bytes=buffers + max(self.largest[:first], default=0),
        )

    def on_cpu(self, n_gpu_layers: int, context: int) -> Footprint:
        first = len(self.blocks) + 1 - max(n_gpu_layers, 1)
        # With every block on the GPU only the embedded tokens and the mask are left.
        width = self.feed_forward + 4 * self.embedding if first else self.embedding
        buffers = self._activations(width, context) + self.logits
        footprint = Footprint(
            weight_bytes=self.inputs + sum(self.blocks[:first]),
            kv_bytes=_padded(context) * sum(self.kv_per_token[:first]),
            compute_bytes=buffers,
        )
        if n_gpu_layers:
            return footprint
        return replace(
            footprint,
            weight_bytes=footprint.weight_bytes + self.output - self.copied,
            compute_bytes=footprint.compute_bytes + self.logits,
        )

    def _activations(self, width: int, context: int) -> int:
        return 4 * min(self.micro_batch, _padded(context)) * (width + _padded(context))


def _measure(gguf: GgufFile, batching: Batching) -> _Costs:
    blocks: list[list[int]] = [[0] for _ in range(gguf.n_layers)]
    inputs = output = embeddings = 0
    for tensor in gguf.tensors:
        block = _block_of(tensor, gguf.n_layers)
        if block is not None:
            blocks[block].append(tensor.n_bytes)
        elif tensor.name.startswith(_INPUT_TENSORS):
            inputs += tensor.n_bytes
        else:
            output += tensor.n_bytes
        if tensor.name == "token_embd.weight":
            embeddings = tensor.n_bytes
    tied = not any(tensor.name == "output.weight" for tensor in gguf.tensors)
    copied = embeddings if tied else 0
    return _Costs(
        blocks=tuple(map(sum, blocks)),
        largest=tuple(map(max, blocks)),
        kv_per_token=_kv_bytes_per_token(gguf),
        inputs=inputs,
        output=output + copied,
        copied=copied,
        embedding=gguf.embedding_length,
        feed_forward=_feed_forward_width(gguf),
        micro_batch=batching.micro_batch,
        logits=4 * batching.sequences * gguf.vocab_size,
    )


def _block_of(tensor: Tensor, n_layers: int) -> int | None:
    match = re.match(r"blk\.(\d{1,5})\.", tensor.name)
    block = int(match[1]) if match else n_layers
    return block if block < n_layers else None


def _kv_bytes_per_token(gguf: GgufFile) -> tuple[int, ...]:
    bytes_per_head = 2 * (gguf.key_length + gguf.value_length)
    return tuple(heads * bytes_per_head for heads in gguf.n_head_kv)


def _feed_forward_width(gguf: GgufFile) -> int:
    """Gate and up projection of one token, and every expert's output in a mixture."""
    expert = 2 * gguf.expert_feed_forward_length + gguf.embedding_length
    return max(2 * gguf.feed_forward_length, gguf.n_experts_used * expert)


def _padded(context: int) -> int:
    return -(-context // CONTEXT_STEP) * CONTEXT_STEP


# Where everything goes


@dataclass(frozen=True)
class _Layout:
    """One way to place both models."""

    context: int
    n_gpu_layers: int
    on_gpu: Footprint
    on_cpu: Footprint


@dataclass(frozen=True)
class _Layouts:
    """The best layout for each length of context."""

    case: _Case
    costs: _Costs

    def best(self, context: int) -> _Layout | None:
        """The layout with most layers on the GPU, None when nothing fits."""
        for n_gpu_layers in reversed(self.case.wanted_layers):
            layout = self.place(n_gpu_layers, context)
            if self.fits_gpu(layout) and self.fits_ram(layout):
                return layout
        return None

    def closest(self, context: int) -> _Layout:
        """The layout to explain when nothing fits: whatever the GPU can take, the rest in RAM."""
        layouts = [self.place(layers, context) for layers in self.case.wanted_layers]
        return next(filter(self.fits_gpu, reversed(layouts)), layouts[0])

    def place(self, n_gpu_layers: int, context: int) -> _Layout:
        """Place the target as told, and the prompter in what it leaves of the GPU."""
        on_gpu = self.costs.on_gpu(n_gpu_layers, context)
        on_cpu = self.costs.on_cpu(n_gpu_layers, context)
        prompter_bytes = self.case.prompter_bytes
        if on_gpu.total_bytes + prompter_bytes <= self.case.prompter_room:
            on_gpu = replace(on_gpu, prompter_bytes=prompter_bytes)
        else:
            on_cpu = replace(on_cpu, prompter_bytes=prompter_bytes)
        return _Layout(context, n_gpu_layers, on_gpu, on_cpu)

    def fits_gpu(self, layout: _Layout) -> bool:
        """Whether the GPU's share fits; the prompter is only there when it does."""
        return layout.n_gpu_layers == 0 or layout.on_gpu.total_bytes <= self.case.target_room

    def fits_ram(self, layout: _Layout) -> bool:
        """Whether buffers fit what is available and mapped weights fit what there is at all."""
        ram = self.case.ram
        return (
            layout.on_cpu.allocated_bytes <= _budget(ram.available_bytes)
            and layout.on_cpu.total_bytes <= ram.total_bytes
        )

    def longest_context(self) -> int:
        """The longest context up to the wanted one with which something fits, 0 for none."""
        wanted = self.case.wanted_context
        if self.best(wanted):
            return wanted
        steps = range(0, wanted, CONTEXT_STEP)
        fitting = bisect_right(steps[1:], False, key=lambda context: self.best(context) is None)
        return steps[fitting]


def _choose_layout(case: _Case, costs: _Costs) -> _Layout:
    layouts = _Layouts(case, costs)
    longest = layouts.longest_context()
    layout = layouts.best(longest) if longest >= case.shortest_context else None
    if layout is None:
        raise DeviceError(_what_is_short(case, layouts), _what_would_fit(case.request, longest))
    return layout


def _what_is_short(case: _Case, layouts: _Layouts) -> str:
    layout = layouts.closest(case.shortest_context)
    subject = f"{case.gguf.path.name} with {layout.context} tokens of context"
    if layouts.fits_gpu(layout):
        total, available = case.ram.total_bytes, case.ram.available_bytes
        return (
            f"{subject} needs {_breakdown(layout.on_cpu)} of RAM; of {readable(total)}, "
            f"{readable(available)} are available, {readable(_budget(available))} for buffers."
        )
    return (
        f"{subject} and {layout.n_gpu_layers} of {case.all_layers} layers on the GPU needs "
        f"{_breakdown(layout.on_gpu)} there, {readable(case.target_room)} can be used."
    )


def _what_would_fit(request: DeviceRequest, longest_context: int) -> str:
    if request.ctx and longest_context:
        return f"Use --ctx {longest_context} or less."
    if request.n_gpu_layers:
        return "Use fewer --n-gpu-layers, or leave the option out."
    return "Use a smaller or more strongly quantised model, or free some memory."


def _breakdown(footprint: Footprint) -> str:
    return (
        f"{readable(footprint.total_bytes)} (weights {readable(footprint.weight_bytes)}, "
        f"KV cache {readable(footprint.kv_bytes)}, buffers {readable(footprint.compute_bytes)}, "
        f"prompter {readable(footprint.prompter_bytes)})"
    )


def _prompter_device(prompter: PrompterNeeds | None, layout: _Layout) -> Device | None:
    if prompter is None:
        return None
    return "cuda" if layout.on_gpu.prompter_bytes else "cpu"


# What the user should know


def _notes(case: _Case, layout: _Layout) -> Iterator[str]:
    request, gpu, ram = case.request, case.gpu, case.ram
    if request.device == "auto" and layout.n_gpu_layers == 0 and request.n_gpu_layers != 0:
        yield _why_target_on_cpu(gpu, case.support)
    if gpu and 0 < layout.n_gpu_layers < case.all_layers and request.n_gpu_layers is None:
        yield (
            f"{layout.n_gpu_layers} of {case.all_layers} layers of the target fit on "
            f"{gpu.name} with {readable(gpu.free_bytes)} free; the others run on the CPU."
        )
    if layout.n_gpu_layers and case.prompter and not layout.on_gpu.prompter_bytes:
        yield _why_prompter_on_cpu(case.prompter, case.support)
    if layout.context < case.wanted_context:
        yield (
            f"The context was lowered from {case.wanted_context} to {layout.context} tokens "
            "to fit the memory."
        )
    if layout.on_cpu.total_bytes > ram.available_bytes:
        yield (
            f"The models need {readable(layout.on_cpu.total_bytes)} of RAM and "
            f"{readable(ram.available_bytes)} are available: expect slow answers while "
            "weights are read from disk again."
        )


def _why_target_on_cpu(gpu: Gpu | None, support: EngineSupport) -> str:
    if gpu is None:
        return "No NVIDIA GPU was found, so everything runs on the CPU."
    if not support.llama_gpu_offload:
        return (
            f"The target runs on the CPU although there is {gpu.name}, because llama-cpp-python "
            f"was built without CUDA. {LLAMA_CUDA_CURE} to change that."
        )
    return (
        f"The target runs on the CPU, because {gpu.name} has only "
        f"{readable(gpu.free_bytes)} of {readable(gpu.total_bytes)} free."
    )


def _why_prompter_on_cpu(prompter: PrompterNeeds, support: EngineSupport) -> str:
    if not prompter.cuda_capable:
        return "The prompter's bundle is built for the CPU, so the prompter stays there."
    if not support.onnx_cuda:
        return (
            "The prompter runs on the CPU, because onnxruntime cannot use CUDA. "
            f"{ONNX_CUDA_CURE} to change that."
        )
    return (
        f"The prompter runs on the CPU, because the target leaves less than the "
        f"{readable(prompter.n_bytes)} that it needs on the GPU."
    )
