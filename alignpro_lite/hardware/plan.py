"""Where both models can run: every plan that a request allows, and the best that fits.

The target takes the GPU first, the prompter what is left of it: a prompter is small and fast enough
on a CPU, while each layer of the target that leaves the GPU slows down every token of the answer.
If both fit, both are on the GPU. The context is lowered only if nothing else makes the model fit:
layers can run from RAM, but nothing replaces missing context.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace

from alignpro_lite.hardware.device import Device, DeviceRequest
from alignpro_lite.hardware.memory import (
    CONTEXT_STEP,
    Footprint,
    PrompterNeeds,
    TargetNeeds,
    usable_bytes,
)
from alignpro_lite.hardware.system import Gpu, Hardware

DEFAULT_CONTEXT = 2048
MIN_CONTEXT = 512


@dataclass(frozen=True)
class Plan:
    """Where both models run.

    Attributes:
        device: `cuda` if at least one layer of the target is on a GPU.
        gpu: The GPU that either model uses, None if neither does.
        n_gpu_layers: What to give llama.cpp, 0 to n_layers + 1.
        n_layers: Blocks of the target, without its output layer.
        context: Tokens of context, shared by all sequences that run together.
        prompter_device: Where the prompter runs, None without a prompter.
        on_gpu: What the GPU holds.
        on_cpu: What RAM holds.
        threads: Threads for either engine. Those of llama.cpp spin, so there are never more of
            them than cores.
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
    notes: tuple[str, ...] = ()

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
    def gpu(self) -> Gpu | None:
        """The GPU with most free memory, None if there is none or none may be used."""
        gpus = () if self.request.device == "cpu" else self.hardware.gpus
        return max(gpus, key=lambda gpu: gpu.free_bytes, default=None)

    @property
    def all_layers(self) -> int:
        """All blocks and the output layer, as llama.cpp counts them."""
        return self.target.gguf.n_layers + 1

    @property
    def allowed_layers(self) -> range:
        """The numbers of GPU layers that satisfy the request."""
        layers = self.request.n_gpu_layers
        if layers is None:
            return range(1 if self.request.device == "cuda" else 0, self.all_layers + 1)
        layers = self.all_layers if layers == -1 else min(layers, self.all_layers)
        return range(layers, layers + 1)

    @property
    def wanted_context(self) -> int:
        """The context to have if there is memory for it."""
        return self.request.ctx or min(self.target.gguf.context_length, DEFAULT_CONTEXT)

    @property
    def shortest_context(self) -> int:
        """The shortest context that satisfies the request."""
        return self.request.ctx or min(self.target.gguf.context_length, MIN_CONTEXT)

    @property
    def target_room(self) -> int:
        """Bytes of the GPU that the target may take."""
        capable = self.target.engine_has_cuda
        return usable_bytes(self.gpu.free_bytes) if self.gpu and capable else 0

    @property
    def prompter_room(self) -> int:
        """Bytes of the GPU that the target and the prompter may take together."""
        needs = self.prompter
        capable = needs and needs.built_for_cuda and needs.engine_has_cuda
        return usable_bytes(self.gpu.free_bytes) if self.gpu and capable else 0

    def place(self, n_gpu_layers: int, context: int) -> Plan:
        """Place the target as told, and the prompter on the rest of the GPU if it fits."""
        on_gpu = self.target.on_gpu(n_gpu_layers, context)
        on_cpu = self.target.in_ram(n_gpu_layers, context)
        prompter_device: Device | None = None
        if self.prompter:
            n_bytes = self.prompter.n_bytes
            if on_gpu.total_bytes + n_bytes <= self.prompter_room:
                prompter_device, on_gpu = "cuda", replace(on_gpu, prompter_bytes=n_bytes)
            else:
                prompter_device, on_cpu = "cpu", replace(on_cpu, prompter_bytes=n_bytes)
        return Plan(
            device="cuda" if n_gpu_layers else "cpu",
            gpu=self.gpu if on_gpu.total_bytes else None,
            n_gpu_layers=n_gpu_layers,
            n_layers=self.target.gguf.n_layers,
            context=context,
            prompter_device=prompter_device,
            on_gpu=on_gpu,
            on_cpu=on_cpu,
            threads=self.hardware.cores,
        )

    def fits_gpu(self, plan: Plan) -> bool:
        """Whether the GPU has room; the prompter is there only if it fits."""
        return plan.n_gpu_layers == 0 or plan.on_gpu.total_bytes <= self.target_room

    def fits_ram(self, plan: Plan) -> bool:
        """Whether buffers fit the available RAM, and mapped weights with them all the RAM."""
        ram = self.hardware.ram
        return (
            plan.on_cpu.allocated_bytes <= usable_bytes(ram.available_bytes)
            and plan.on_cpu.total_bytes <= ram.total_bytes
        )

    def best(self, context: int) -> Plan | None:
        """The plan with most layers on the GPU, None if nothing fits."""
        for n_gpu_layers in reversed(self.allowed_layers):
            plan = self.place(n_gpu_layers, context)
            if self.fits_gpu(plan) and self.fits_ram(plan):
                return plan
        return None

    def closest(self, context: int) -> Plan:
        """The plan to explain if nothing fits: as much on the GPU as it can take."""
        plans = [self.place(layers, context) for layers in self.allowed_layers]
        return next(filter(self.fits_gpu, reversed(plans)), plans[0])

    def longest_context(self) -> int:
        """The longest context up to the wanted one with which something fits, 0 for none."""
        wanted = self.wanted_context
        if self.best(wanted):
            return wanted
        steps = range(0, wanted, CONTEXT_STEP)
        fitting = bisect_right(steps[1:], False, key=lambda context: self.best(context) is None)
        return steps[fitting]
