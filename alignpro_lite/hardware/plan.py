"""Where both models can run: every plan that a request allows, and the best that fits.

The target takes the GPU first, the prompter what is left of it: a prompter is small and fast enough
on a CPU, while each layer of the target that leaves the GPU slows down every token of the answer.
If both fit, both are on the GPU. The context is lowered only if nothing else makes the model fit:
layers can run from RAM, but nothing replaces missing context.

Context costs memory, not time: llama.cpp's attention visits the tokens that are there. So a plan
with room left is given more of it, for more and longer answers at once: up to half of what is free
beside the models, and in RAM, which other programs need too, up to a small part of the weights. The
sizes are doubled, so that a little more free memory does not change which answers are computed
together.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace

from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.hardware.device import Accelerator, Device, DeviceRequest
from alignpro_lite.hardware.memory import (
    CONTEXT_STEP,
    Footprint,
    PrompterNeeds,
    TargetNeeds,
    usable_bytes,
)
from alignpro_lite.hardware.system import Gpu, Hardware

BASE_CONTEXT = 2048
"""Tokens of context that layers leave the GPU for, without --ctx."""
MIN_CONTEXT = 512
MAX_CONTEXT = 16384
"""The most tokens of context that are not asked for."""
_KV_PART = 6
"""Beyond the base context, the KV cache in RAM takes at most this part of the weights."""
_ORDINARY = 1024
"""Tokens of an ordinary conversation and its answer; for several of them it may take more."""


@dataclass(frozen=True)
class Plan:
    """Where both models run.

    Attributes:
        gpu: The GPU that the target has layers on, None on the CPU.
        n_gpu_layers: What to give llama.cpp, 0 to n_layers + 1.
        n_layers: Blocks of the target, without its output layer.
        context: Tokens of context that all sequences share which run together.
        longest: Tokens that one conversation and its answer may have.
        prompter_device: Where the prompter runs; None without one, or if it is the target itself.
        prompter_gpu: The GPU that the prompter runs on, None on the CPU.
        on_gpu: What the target's GPU holds, the prompter's part too if that is the same one.
        on_cpu: What RAM holds.
        mapped: Whether weights in RAM stay in their file, which the system reads and forgets as it
            needs, and are not copied into the order that llama.cpp computes fastest in.
        threads: Threads for either engine. Those of llama.cpp spin, so there are never more of
            them than cores.
        notes: Sentences that the user should see once.
    """

    gpu: Accelerator | None
    n_gpu_layers: int
    n_layers: int
    context: int
    longest: int
    prompter_device: Device | None
    prompter_gpu: Gpu | None
    on_gpu: Footprint
    on_cpu: Footprint
    mapped: bool
    threads: int
    notes: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """llama.cpp's name of the GPU that the target has layers on, or `cpu`."""
        return self.gpu.name if self.gpu else "cpu"

    @property
    def shared_bytes(self) -> int:
        """What the target's GPU holds of the machine's memory."""
        gpu = self.gpu
        return self.on_gpu.total_bytes if gpu and gpu.shares_ram and gpu.reports_memory else 0

    @property
    def ram_bytes(self) -> int:
        """All that the models take of the machine's memory."""
        return self.on_cpu.total_bytes + self.shared_bytes

    @property
    def kv_bytes(self) -> int:
        """The whole KV cache of the target."""
        return self.on_gpu.kv_bytes + self.on_cpu.kv_bytes


@dataclass(frozen=True)
class PlanningCase:
    """The models, the hardware and the request that a plan is made for.

    Attributes:
        request: What the user asked for; `make_plan` refuses contradictions in it.
        target: What the target needs.
        prompter: What the prompter needs, None if the target runs alone.
        hardware: What there is.
    """

    request: DeviceRequest
    target: TargetNeeds
    prompter: PrompterNeeds | None
    hardware: Hardware

    @property
    def gpus(self) -> tuple[Accelerator, ...]:
        """The GPUs that the target may use."""
        allowed = {"cpu": (), "cuda": ("CUDA",)}.get(self.request.device)
        found = self.target.devices.gpus
        return tuple(gpu for gpu in found if allowed is None or gpu.backend in allowed)

    @property
    def gpu(self) -> Accelerator | None:
        """The GPU for the target, None if there is none or none may be used.

        One with memory of its own goes before one that shares the machine's, which is slower; of
        several, the one with most free memory. A full one goes last.
        """

        def rank(gpu: Accelerator) -> tuple[bool, bool, int]:
            free = self.free_bytes(gpu)
            return usable_bytes(free) > 0, not gpu.shares_ram, free

        return max(self.gpus, key=rank, default=None)

    @property
    def all_layers(self) -> int:
        """All blocks and the output layer, as llama.cpp counts them."""
        return self.target.gguf.n_layers + 1

    @property
    def allowed_layers(self) -> range:
        """The numbers of GPU layers that satisfy the request."""
        layers = self.request.n_gpu_layers
        if layers is None:
            least = 1 if self.request.insists_on_gpu else 0
            return range(least, self.all_layers + 1 if self.gpu else least + 1)
        layers = self.all_layers if layers == -1 else min(layers, self.all_layers)
        return range(layers, layers + 1)

    @property
    def wanted_context(self) -> int:
        """Tokens of context that are worth fewer layers on the GPU."""
        return usual_conversation(self.request, self.target.gguf) + self.prompter_context

    @property
    def prompter_context(self) -> int:
        """Tokens of context that a prompter takes which is the target itself."""
        return self.prompter.target_context if self.prompter else 0

    @property
    def shortest_context(self) -> int:
        """The least that a plan may have: what was asked for, or enough for one short answer."""
        usual = usual_conversation(self.request, self.target.gguf)
        return (self.request.ctx or min(MIN_CONTEXT, usual)) + self.prompter_context

    def free_bytes(self, gpu: Accelerator) -> int:
        """Memory that can be allocated on a GPU, also by what the rest of the machine leaves."""
        if gpu.shares_ram:
            return min(gpu.free_bytes, self.hardware.ram.available_bytes)
        return gpu.free_bytes

    @property
    def target_room(self) -> int:
        """Bytes of the GPU that the target may take.

        A GPU that does not report its memory is used only by a user who insists on it, and then
        holds what it is given.
        """
        if self.gpu is None:
            return 0
        if not self.gpu.reports_memory:
            return sys.maxsize if self.request.insists_on_gpu else 0
        return usable_bytes(self.free_bytes(self.gpu))

    def place(self, n_gpu_layers: int, context: int) -> Plan:
        """Place the target as told, and the prompter on the rest of a GPU if it fits."""
        gpu = self.gpu if n_gpu_layers else None
        on_gpu = self.target.on_gpu(n_gpu_layers, context)
        on_cpu = self.target.in_ram(n_gpu_layers, context)
        prompter_gpu = self._prompter_gpu(gpu, on_gpu)
        n_bytes = self.prompter.n_bytes if self.prompter else 0
        is_target = self.prompter_context > 0
        if gpu and (is_target or (prompter_gpu and _same_card(prompter_gpu, gpu))):
            on_gpu = replace(on_gpu, prompter_bytes=n_bytes)
        elif prompter_gpu is None:
            on_cpu = replace(on_cpu, prompter_bytes=n_bytes)
        device: Device = "cuda" if prompter_gpu else "cpu"
        return Plan(
            gpu=gpu,
            n_gpu_layers=n_gpu_layers,
            n_layers=self.target.gguf.n_layers,
            context=context,
            longest=min(self._longest(context), self.target.gguf.context_length),
            prompter_device=None if is_target or not self.prompter else device,
            prompter_gpu=prompter_gpu,
            on_gpu=on_gpu,
            on_cpu=on_cpu,
            mapped=self._mapped(gpu, on_cpu),
            threads=self.hardware.cores,
        )

    def _longest(self, context: int) -> int:
        """Tokens of one sequence, a request to the prompter included."""
        return self.request.ctx + self.prompter_context if self.request.ctx else context

    def gpu_left(self, plan: Plan) -> int:
        """Bytes that a plan leaves of the room on its GPU; the prompter is there only if it fits.

        Below 0 it does not fit.
        """
        return self.target_room - plan.on_gpu.total_bytes if plan.gpu else 0

    def ram_left(self, plan: Plan) -> int:
        """Bytes that a plan leaves of the RAM. Below 0 it does not fit.

        Buffers must fit the available RAM, and mapped weights with them all the RAM. What a GPU
        holds that shares it is in memory like a buffer.
        """
        ram, shared = self.hardware.ram, plan.shared_bytes
        return min(
            self._ram_room - plan.on_cpu.allocated_bytes - shared,
            ram.total_bytes - plan.ram_bytes,
        )

    def fits(self, plan: Plan) -> bool:
        """Whether all of a plan fits."""
        return self.gpu_left(plan) >= 0 and self.ram_left(plan) >= 0

    def best(self, context: int) -> Plan | None:
        """The plan with most layers on the GPU, None if nothing fits."""
        plans = (self.place(layers, context) for layers in reversed(self.allowed_layers))
        return next(filter(self.fits, plans), None)

    def closest(self, context: int) -> Plan:
        """The plan to explain if nothing fits: as much on the GPU as it can take."""
        plans = [self.place(layers, context) for layers in self.allowed_layers]
        return next((plan for plan in reversed(plans) if self.gpu_left(plan) >= 0), plans[0])

    def longest_context(self) -> int:
        """The longest context up to the wanted one with which something fits, 0 for none."""
        wanted = self.wanted_context
        if self.best(wanted):
            return wanted
        steps = range(0, wanted, CONTEXT_STEP)
        fitting = bisect_right(steps[1:], False, key=lambda context: self.best(context) is None)
        return steps[fitting]

    def with_more_context(self, plan: Plan) -> Plan:
        """The same plan with as much context as there is room for, at least what it has."""
        for context in self._larger_contexts(plan):
            larger = self.place(plan.n_gpu_layers, context)
            if larger.prompter_gpu == plan.prompter_gpu and self._affords(larger, plan):
                return larger
        return plan

    def _larger_contexts(self, plan: Plan) -> Iterator[int]:
        """Longer contexts than a plan has, the longest first, that its sequences could fill."""
        conversation = self.request.ctx or self.target.gguf.context_length
        most = conversation * self.target.sequences
        undistorted = self.target.undistorted_context
        if undistorted and plan.context <= undistorted:
            most = min(most, undistorted)
        context = MAX_CONTEXT
        while context > plan.context:
            if context <= most:
                yield context
            context //= 2

    def _affords(self, larger: Plan, plan: Plan) -> bool:
        """Whether more context leaves enough of the memory to others."""
        gpu = larger.gpu
        if gpu and not gpu.reports_memory:
            return False
        in_ram = larger.kv_bytes if gpu and gpu.shares_ram else larger.on_cpu.kv_bytes
        is_small = _KV_PART * in_ram <= self.target.weight_bytes
        together = self.request.conversations
        is_shared = together > 1 and larger.context <= together * _ORDINARY
        return (
            (is_small or is_shared)
            and 2 * self.gpu_left(larger) >= self.gpu_left(plan)
            and 2 * (larger.ram_bytes - plan.ram_bytes) <= self._ram_room - plan.ram_bytes
        )

    @property
    def _ram_room(self) -> int:
        return usable_bytes(self.hardware.ram.available_bytes)

    def _mapped(self, gpu: Accelerator | None, on_cpu: Footprint) -> bool:
        """Whether weights stay in their file.

        llama.cpp copies those that it computes with in another order. From a mapped file they would
        be there twice, so the file is read, once, if memory is there for it. A GPU that shares the
        memory computes with the mapped weights themselves.
        """
        shared = gpu is not None and gpu.shares_ram
        return shared or not self.target.is_reordered or on_cpu.total_bytes > self._ram_room

    def _prompter_gpu(self, gpu: Accelerator | None, on_gpu: Footprint) -> Gpu | None:
        """The NVIDIA GPU for the prompter, beside the target or on another one; None for none."""
        needs = self.prompter
        capable = needs and needs.built_for_cuda and needs.engine_has_cuda
        if not needs or not capable or self.request.device == "cpu":
            return None

        def room(card: Gpu) -> int:
            taken = on_gpu.total_bytes if gpu and _same_card(card, gpu) else 0
            return usable_bytes(card.free_bytes) - taken

        roomiest = max(self.hardware.gpus, key=room, default=None)
        return roomiest if roomiest and room(roomiest) >= needs.n_bytes else None


def usual_conversation(request: DeviceRequest, gguf: GgufFile) -> int:
    """Tokens of a conversation that there should be room for."""
    return request.ctx or min(BASE_CONTEXT, gguf.context_length)


def _same_card(card: Gpu, gpu: Accelerator) -> bool:
    """Whether NVML and llama.cpp mean one GPU; of equal ones in Vulkan, each may be it."""
    if gpu.backend == "CUDA":
        return gpu.name == f"CUDA{card.index}"
    return gpu.description == card.name
