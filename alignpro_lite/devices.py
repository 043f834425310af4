"""What hardware there is, and one plan that places both models on it.

`find_hardware` asks the system, without torch and without an engine: NVML for
the GPUs, the operating system for memory and cores. `make_plan` is arithmetic
on a GGUF header and touches nothing.

How much memory a target takes (bytes; sources: llama.cpp's `llama-model.cpp`
for what goes where, its own buffer reports for the estimates):

- KV cache, in f16: 2 bytes x context x sum over layers of
  n_head_kv x (key_length + value_length). The context is padded to 256. Layers
  with a sliding window count in full, so the sum is an upper bound for them.
- Weights: the input embeddings stay in RAM. `n_gpu_layers = k` puts the output
  layer and the last k - 1 blocks on the GPU, so k = n_layers + 1 is everything.
  Tied embeddings are copied to the GPU when they serve as output layer.
- Compute buffer: 4 bytes x N_UBATCH x (widest activation + 4 x embedding_length
  + context). The widest activation is the vocabulary (logits) or the inside of
  a feed-forward layer; the context stands for the attention mask. Blocks in RAM
  are multiplied on the GPU when a prompt is read, so a partly offloaded model
  also needs room there for a copy of the largest tensor that stayed behind.
- Margin: 5 % of what is free, at least 300 MB, is left alone.

Who goes first: the target takes the GPU, the prompter takes what is left of it.
A prompter is small and fast enough on a CPU, while each layer of the target
that leaves the GPU slows down every token of the answer. When both fit, both
are on the GPU. The context is lowered only when nothing else makes the model
fit: layers can live in RAM, tokens beyond the context cannot live anywhere.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from alignpro_lite.errors import DeviceError, InputError
from alignpro_lite.gguf import GgufFile, Tensor

Device = Literal["cuda", "cpu"]

N_UBATCH = 512
DEFAULT_CONTEXT = 4096
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
class Gpu:
    """One NVIDIA GPU that this process may use.

    Attributes:
        index: Its number for CUDA under `CUDA_DEVICE_ORDER=PCI_BUS_ID`,
            counted among the devices that `CUDA_VISIBLE_DEVICES` leaves.
        name: What the driver calls it.
        total_bytes: Its memory.
        free_bytes: What other processes leave of it.
    """

    index: int
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Ram:
    """Memory of the machine, or of the container when that has less.

    Attributes:
        total_bytes: All of it.
        available_bytes: What can be had without swapping.
    """

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True)
class Hardware:
    """What a plan can be made on.

    Attributes:
        gpus: GPUs in the order of their index.
        ram: Main memory.
        cores: Physical cores that this process may keep busy.
    """

    gpus: tuple[Gpu, ...]
    ram: Ram
    cores: int


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
) -> Plan:
    """Decide which layers go where, how long the context is and where the prompter runs.

    The arithmetic and the choices are explained at the top of this module.

    Args:
        request: What the user asked for.
        gguf: The header of the target.
        prompter: What the prompter needs, None when the target runs alone.
        support: What the engines were built for.
        hardware: What there is.

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
    room = _Room(
        target=_budget(gpu.free_bytes) if gpu and support.llama_gpu_offload else 0,
        prompter=_budget(gpu.free_bytes) if gpu and _prompter_can(prompter, support) else 0,
        ram=hardware.ram,
    )
    prompter_bytes = prompter.n_bytes if prompter else 0
    layouts = _Layouts(_measure(gguf), _wanted_layers(request, gguf), prompter_bytes, room)
    layout = _choose_layout(request, gguf, layouts)
    uses_gpu = layout.on_gpu.total_bytes > 0
    return Plan(
        device="cuda" if layout.n_gpu_layers else "cpu",
        gpu=gpu if uses_gpu else None,
        n_gpu_layers=layout.n_gpu_layers,
        n_layers=gguf.n_layers,
        context=layout.context,
        prompter_device=_prompter_device(prompter, layout),
        on_gpu=layout.on_gpu,
        on_cpu=layout.on_cpu,
        threads=hardware.cores,
        notes=tuple(_notes(request, gguf, prompter, support, hardware, gpu, layout)),
    )


def kv_bytes(gguf: GgufFile, context: int) -> int:
    """Bytes of a KV cache in f16, the formula at the top of this module.

    Args:
        gguf: The header of the model.
        context: Tokens, padded to the next multiple of 256 as llama.cpp does.
    """
    return _padded(context) * sum(_kv_bytes_per_token(gguf))


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


def _wanted_layers(request: DeviceRequest, gguf: GgufFile) -> range:
    """The numbers of GPU layers that satisfy the request."""
    everything = gguf.n_layers + 1
    if request.n_gpu_layers is None:
        return range(1 if request.device == "cuda" else 0, everything + 1)
    layers = everything if request.n_gpu_layers == -1 else min(request.n_gpu_layers, everything)
    return range(layers, layers + 1)


def _prompter_can(prompter: PrompterNeeds | None, support: EngineSupport) -> bool:
    return prompter is not None and prompter.cuda_capable and support.onnx_cuda


def _roomiest(gpus: tuple[Gpu, ...]) -> Gpu | None:
    return max(gpus, key=lambda gpu: gpu.free_bytes, default=None)


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
        vocab: Width of the logits, in numbers.
    """

    blocks: tuple[int, ...]
    largest: tuple[int, ...]
    kv_per_token: tuple[int, ...]
    inputs: int
    output: int
    copied: int
    embedding: int
    feed_forward: int
    vocab: int

    def on_gpu(self, n_gpu_layers: int, context: int) -> Footprint:
        if n_gpu_layers == 0:
            return Footprint()
        first = len(self.blocks) + 1 - n_gpu_layers
        widest = max(self.vocab, self.feed_forward)
        visitors = max(self.largest[:first], default=0)
        return Footprint(
            weight_bytes=self.output + sum(self.blocks[first:]),
            kv_bytes=_padded(context) * sum(self.kv_per_token[first:]),
            compute_bytes=self._activations(widest + 4 * self.embedding, context) + visitors,
        )

    def on_cpu(self, n_gpu_layers: int, context: int) -> Footprint:
        first = len(self.blocks) + 1 - max(n_gpu_layers, 1)
        if n_gpu_layers == 0:
            output, width = self.output - self.copied, max(self.vocab, self.feed_forward)
        else:
            output, width = 0, self.feed_forward
        # With every block on the GPU only the embedded tokens and the mask are left.
        width = width + 4 * self.embedding if first > 0 else self.embedding
        return Footprint(
            weight_bytes=self.inputs + output + sum(self.blocks[:first]),
            kv_bytes=_padded(context) * sum(self.kv_per_token[:first]),
            compute_bytes=self._activations(width, context),
        )

    def _activations(self, width: int, context: int) -> int:
        return 4 * min(N_UBATCH, _padded(context)) * (width + _padded(context))


def _measure(gguf: GgufFile) -> _Costs:
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
        vocab=gguf.vocab_size,
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
class _Room:
    """Bytes that each model may take on the GPU (0 where it cannot run there), and the RAM."""

    target: int
    prompter: int
    ram: Ram


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

    costs: _Costs
    wanted_layers: range
    prompter_bytes: int
    room: _Room

    def best(self, context: int) -> _Layout | None:
        """The layout with most layers on the GPU, None when nothing fits."""
        for n_gpu_layers in reversed(self.wanted_layers):
            layout = self.place(n_gpu_layers, context)
            if self.fits_gpu(layout) and self.fits_ram(layout):
                return layout
        return None

    def closest(self, context: int) -> _Layout:
        """The layout to explain when nothing fits: whatever the GPU can take, the rest in RAM."""
        layouts = [self.place(n_gpu_layers, context) for n_gpu_layers in self.wanted_layers]
        return next(filter(self.fits_gpu, reversed(layouts)), layouts[0])

    def place(self, n_gpu_layers: int, context: int) -> _Layout:
        """Place the target as told, and the prompter in what it leaves of the GPU."""
        on_gpu = self.costs.on_gpu(n_gpu_layers, context)
        on_cpu = self.costs.on_cpu(n_gpu_layers, context)
        if on_gpu.total_bytes + self.prompter_bytes <= self.room.prompter:
            on_gpu = replace(on_gpu, prompter_bytes=self.prompter_bytes)
        else:
            on_cpu = replace(on_cpu, prompter_bytes=self.prompter_bytes)
        return _Layout(context, n_gpu_layers, on_gpu, on_cpu)

    def fits_gpu(self, layout: _Layout) -> bool:
        """Whether the target's share fits what it may take of the GPU."""
        return layout.n_gpu_layers == 0 or layout.on_gpu.total_bytes <= self.room.target

    def fits_ram(self, layout: _Layout) -> bool:
        """Whether buffers fit what is available and mapped weights fit what there is at all."""
        ram = self.room.ram
        return (
            layout.on_cpu.allocated_bytes <= _budget(ram.available_bytes)
            and layout.on_cpu.total_bytes <= ram.total_bytes
        )

    def longest(self, limit: int) -> int | None:
        """The longest context up to a limit with which something fits."""
        if self.best(limit):
            return limit
        steps = range(CONTEXT_STEP, limit, CONTEXT_STEP)
        n_fitting = bisect_right(steps, False, key=lambda context: self.best(context) is None)
        return steps[n_fitting - 1] if n_fitting else None


def _budget(free_bytes: int) -> int:
    return max(0, free_bytes - max(free_bytes // 20, MIN_MARGIN))


def _choose_layout(request: DeviceRequest, gguf: GgufFile, layouts: _Layouts) -> _Layout:
    limit = request.ctx or min(gguf.context_length, DEFAULT_CONTEXT)
    longest = layouts.longest(limit)
    shortest = request.ctx or min(limit, MIN_CONTEXT)
    layout = layouts.best(longest) if longest is not None and longest >= shortest else None
    if layout is None:
        raise _does_not_fit(request, gguf, layouts, shortest, longest)
    return layout


def _does_not_fit(
    request: DeviceRequest, gguf: GgufFile, layouts: _Layouts, context: int, longest: int | None
) -> DeviceError:
    """Say what is short, with the numbers, and what would fit."""
    layout = layouts.closest(context)
    room, gpu, cpu = layouts.room, layout.on_gpu, layout.on_cpu
    subject = f"{gguf.path.name} with {context} tokens of context"
    if not layouts.fits_gpu(layout):
        problem = (
            f"{subject} and {layout.n_gpu_layers} of {gguf.n_layers + 1} layers on the GPU needs "
            f"{_breakdown(gpu)} there, {readable(room.target)} can be used."
        )
    else:
        problem = (
            f"{subject} needs {_breakdown(cpu)} of RAM, there are "
            f"{readable(room.ram.total_bytes)}, {readable(room.ram.available_bytes)} available."
        )
    if request.ctx and longest:
        return DeviceError(problem, f"Use --ctx {longest} or less.")
    if request.n_gpu_layers:
        return DeviceError(problem, "Use fewer --n-gpu-layers, or leave the option out.")
    return DeviceError(
        problem, "Use a smaller or more strongly quantised model, or free some memory."
    )


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


def _notes(
    request: DeviceRequest,
    gguf: GgufFile,
    prompter: PrompterNeeds | None,
    support: EngineSupport,
    hardware: Hardware,
    gpu: Gpu | None,
    layout: _Layout,
) -> Iterator[str]:
    if request.device == "auto" and layout.n_gpu_layers == 0 and request.n_gpu_layers != 0:
        yield _why_target_on_cpu(gpu, support)
    if gpu and 0 < layout.n_gpu_layers <= gguf.n_layers and request.n_gpu_layers is None:
        yield (
            f"{layout.n_gpu_layers} of {gguf.n_layers + 1} layers of the target fit on "
            f"{gpu.name} with {readable(gpu.free_bytes)} free; the others run on the CPU."
        )
    if layout.n_gpu_layers and prompter and not layout.on_gpu.prompter_bytes:
        yield _why_prompter_on_cpu(prompter, support)
    wanted_context = request.ctx or min(gguf.context_length, DEFAULT_CONTEXT)
    if layout.context < wanted_context:
        yield (
            f"The context was lowered from {wanted_context} to {layout.context} tokens "
            "to fit the memory."
        )
    if layout.on_cpu.total_bytes > hardware.ram.available_bytes:
        yield (
            f"The models need {readable(layout.on_cpu.total_bytes)} of RAM and "
            f"{readable(hardware.ram.available_bytes)} are available: expect slow answers while "
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


# The hardware


def find_hardware() -> Hardware:
    """Ask the system what there is; takes milliseconds and starts no engine."""
    return Hardware(gpus=find_gpus(), ram=find_ram(), cores=usable_cores())


def find_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that CUDA would show to this process, by NVML.

    No driver library means no GPU. A device that does not tell its memory is left out.
    """
    nvml = _load_nvml()
    if nvml is None or nvml.nvmlInit_v2() != 0:
        return ()
    try:
        handles = _visible_handles(nvml, os.environ.get("CUDA_VISIBLE_DEVICES"))
        gpus = (_describe_gpu(nvml, index, handle) for index, handle in enumerate(handles))
        return tuple(gpu for gpu in gpus if gpu is not None)
    finally:
        nvml.nvmlShutdown()


def _load_nvml() -> Any:
    """NVML, or None without an NVIDIA driver; untyped because it is a foreign library."""
    try:
        return ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return None


class _NvmlMemory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def _visible_handles(nvml: Any, visible: str | None) -> list[ctypes.c_void_p]:
    """Handles of the devices; like CUDA, the list ends at the first name that is not there."""
    if visible is None:
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        names = [str(index) for index in range(count.value)]
    else:
        names = [name.strip() for name in visible.split(",")]
    handles = []
    for name in names:
        handle = ctypes.c_void_p()
        if name.isdecimal():
            status = nvml.nvmlDeviceGetHandleByIndex_v2(
                ctypes.c_uint(int(name)), ctypes.byref(handle)
            )
        else:
            status = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
        if status != 0:
            break
        handles.append(handle)
    return handles


def _describe_gpu(nvml: Any, index: int, handle: ctypes.c_void_p) -> Gpu | None:
    name, memory = ctypes.create_string_buffer(96), _NvmlMemory()
    if nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) != 0:
        return None
    nvml.nvmlDeviceGetName(handle, name, ctypes.c_uint(len(name)))
    return Gpu(index, name.value.decode("utf-8", "replace"), memory.total, memory.free)


class _MemoryStatus(ctypes.Structure):
    """MEMORYSTATUSEX of the Windows API."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        ("total", ctypes.c_ulonglong),
        ("available", ctypes.c_ulonglong),
        ("others", ctypes.c_ulonglong * 5),
    )


def find_ram(system: Path = Path("/")) -> Ram:
    """The memory of the machine, within the limits of the container on Linux.

    Args:
        system: Where the Linux pseudo file systems are found.
    """
    if sys.platform == "win32":
        status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return Ram(status.total, status.available)
    if sys.platform == "darwin":
        total = _sysctl("hw.memsize")
        return Ram(total, total * _sysctl("kern.memorystatus_level") // 100)
    kibibytes = _named_numbers((system / "proc/meminfo").read_text().replace(":", ""))
    ram = Ram(kibibytes["MemTotal"] << 10, kibibytes["MemAvailable"] << 10)
    for folder in _cgroup_folders("memory", system):
        ram = _limited(ram, folder)
    return ram


def usable_cores(system: Path = Path("/")) -> int:
    """How many threads can run without sharing a core.

    On Linux these are the physical cores that the process may run on, within the
    processor quota of its container; on macOS the fast ones; on Windows, which
    needs more than one call to tell cores from threads, the logical ones.

    Args:
        system: Where the Linux pseudo file systems are found.
    """
    if sys.platform == "linux":
        cores = _physical_cores(os.sched_getaffinity(0), system)
        return max(1, int(min(cores, _processor_quota(system))))
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or 1
    return os.cpu_count() or 1


def _sysctl(name: str) -> int:
    """A number of macOS's kernel, 0 when it has none of this name."""
    value, size = ctypes.c_uint64(), ctypes.c_size_t(8)
    libc = ctypes.CDLL(None)
    libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return value.value


def _physical_cores(cpus: Iterable[int], system: Path) -> int:
    """Count logical processors once for each set of siblings that share a core."""
    folder = system / "sys/devices/system/cpu"
    siblings = {
        tuple(_words(folder / f"cpu{cpu}/topology/thread_siblings_list") or [str(cpu)])
        for cpu in cpus
    }
    return len(siblings)


def _processor_quota(system: Path) -> float:
    """Processors' worth of time that the control groups grant, infinity without a limit."""
    grants = [math.inf]
    for folder in _cgroup_folders("cpu", system):
        limits = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(limits) == 2 and limits[0] not in ("max", "-1"):
            grants.append(int(limits[0]) / int(limits[1]))
    return min(grants)


def _limited(ram: Ram, cgroup: Path) -> Ram:
    """Memory within the limit of one control group; pages of files do not count as used."""
    limit = _words(cgroup / "memory.max") or _words(cgroup / "memory.limit_in_bytes")
    if not limit or limit[0] == "max":
        return ram
    used = _named_numbers("\n".join(_lines(cgroup / "memory.stat")))
    left = int(limit[0]) - used.get("anon", used.get("total_rss", 0))
    return Ram(min(ram.total_bytes, int(limit[0])), min(ram.available_bytes, max(0, left)))


def _cgroup_folders(controller: str, system: Path) -> Iterator[Path]:
    """The folders that limit this process, of either version of control groups."""
    root = system / "sys/fs/cgroup"
    for line in _lines(system / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        folder = base / path.lstrip("/")
        yield from (each for each in (folder, *folder.parents) if each.is_relative_to(base))


def _named_numbers(text: str) -> dict[str, int]:
    """Numbers by name from lines such as `MemTotal 16384 kB`."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows}


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []
