"""The devices that a model can run on, and what a user asks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Device = Literal["cuda", "cpu"]
DeviceChoice = Literal["auto", "cuda", "cpu"]


@dataclass(frozen=True)
class DeviceRequest:
    """What the user asked for.

    Attributes:
        device: `auto` takes a GPU if there is one; `cuda` and `cpu` insist.
        n_gpu_layers: Layers of the target on the GPU as llama.cpp counts them (the output layer is
            one of them), -1 for all, None for as many as fit.
        ctx: Tokens of context, None for what suits the model and the memory.
    """

    device: DeviceChoice = "auto"
    n_gpu_layers: int | None = None
    ctx: int | None = None

    @property
    def insists_on_gpu(self) -> bool:
        """Whether a target on the CPU would not be what was asked for."""
        return self.device == "cuda" or self.n_gpu_layers not in (None, 0)
