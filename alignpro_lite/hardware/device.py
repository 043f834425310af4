"""The devices that a model can run on, and what a user asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Device = Literal["cuda", "cpu"]
"""Where a prompter runs: onnxruntime is used with CUDA or not at all on a GPU."""
DeviceChoice = Literal["auto", "gpu", "cuda", "cpu"]

METAL = "MTL"


@dataclass(frozen=True)
class DeviceRequest:
    """What the user asked for.

    Attributes:
        device: `auto` takes a GPU if there is one. `gpu` insists that the target runs on a GPU of
            any kind, `cuda` that both models run on CUDA where they can, `cpu` that none uses a
            GPU.
        n_gpu_layers: Layers of the target on the GPU as llama.cpp counts them (the output layer is
            one of them), -1 for all, None for as many as fit.
        ctx: Tokens that one conversation and its answer may have, None for what suits the model and
            the memory.
        conversations: How many of ordinary length should have room at the same time.
    """

    device: DeviceChoice = "auto"
    n_gpu_layers: int | None = None
    ctx: int | None = None
    conversations: int = 1

    @property
    def insists_on_gpu(self) -> bool:
        """Whether a target on the CPU would not be what was asked for."""
        return self.device in ("gpu", "cuda") or self.n_gpu_layers not in (None, 0)


@dataclass(frozen=True)
class Accelerator:
    """A GPU that llama.cpp can run layers on, through one of its backends.

    Attributes:
        name: llama.cpp's name for it: `CUDA0`, `ROCm0`, `MTL0` (Metal), `Vulkan1`, `SYCL0`.
        description: What the driver calls it.
        total_bytes: Its memory, 0 if the backend does not know.
        free_bytes: What of it can be allocated.
        shares_ram: Whether its memory is the machine's: an integrated GPU.
    """

    name: str
    description: str
    total_bytes: int
    free_bytes: int
    shares_ram: bool = False

    @property
    def backend(self) -> str:
        """The backend's name: `CUDA`, `ROCm`, `MTL`, `Vulkan`, `SYCL`."""
        return self.name.rstrip("0123456789")

    @property
    def reports_memory(self) -> bool:
        """Whether it is known how much memory there is."""
        return self.total_bytes > 0


@dataclass(frozen=True)
class LlamaDevices:
    """What the installed llama.cpp can run on.

    Attributes:
        backends: The backends that it was built with, `CPU` among them.
        gpus: The GPUs that these find, each once.
    """

    backends: tuple[str, ...]
    gpus: tuple[Accelerator, ...]
