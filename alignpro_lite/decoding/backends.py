"""The GPUs that llama.cpp finds, whichever of its backends finds them.

llama_cpp does not bind these functions (source: `ggml-backend.h`); they are called in the libraries
that it has loaded. Each backend follows its own variables: `CUDA_VISIBLE_DEVICES` for CUDA,
`HIP_VISIBLE_DEVICES` for ROCm, `GGML_VK_VISIBLE_DEVICES` for Vulkan.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from alignpro_lite.decoding.environment import native_settings
from alignpro_lite.decoding.llamacpp import ggml_function, llama_cpp
from alignpro_lite.errors import DeviceError
from alignpro_lite.hardware.device import METAL, Accelerator, LlamaDevices

_GPU, _INTEGRATED_GPU = 1, 2
"""Of `enum ggml_backend_dev_type`; an integrated GPU uses the machine's memory."""
_FOR_ANY_VENDOR = ("Vulkan", "GPUOpenCL", "WebGPU")
"""Backends that find the GPUs of other backends once more."""


class Ggml(Protocol):
    """The device functions of `ggml-backend.h`."""

    def backends(self) -> list[str]:
        """Names of the backends."""

    def devices(self) -> list[Any]:
        """Pointers to the devices of all backends; None for one that is gone."""

    def describe(self, device: Any) -> tuple[int, str, str]:
        """Type, name and description of a device."""

    def memory(self, device: Any) -> tuple[int, int]:
        """Free bytes and all bytes of a device; zeros if the backend does not know."""


class NativeGgml:
    """The device functions of the installed llama.cpp."""

    def __init__(self) -> None:
        """Let llama.cpp load its backends.

        Raises:
            MissingDependencyError: llama-cpp-python is not installed.
        """
        with native_settings():  # CUDA numbers its devices now, in the order that it is told
            llama_cpp().llama_supports_gpu_offload()

    def backends(self) -> list[str]:
        """Names of the backends."""
        count = ggml_function("ggml_backend_reg_count", ctypes.c_size_t)
        get = ggml_function("ggml_backend_reg_get", ctypes.c_void_p, ctypes.c_size_t)
        name = ggml_function("ggml_backend_reg_name", ctypes.c_char_p, ctypes.c_void_p)
        return [_text(name(get(number))) for number in range(count())]

    def devices(self) -> list[Any]:
        """Pointers to the devices of all backends; None for one that is gone."""
        count = ggml_function("ggml_backend_dev_count", ctypes.c_size_t)
        get = ggml_function("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
        return [get(number) for number in range(count())]

    def describe(self, device: Any) -> tuple[int, str, str]:
        """Type, name and description of a device."""
        kind = ggml_function("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
        name = ggml_function("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
        text = ggml_function("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)
        return kind(device), _text(name(device)), _text(text(device))

    def memory(self, device: Any) -> tuple[int, int]:
        """Free bytes and all bytes of a device; zeros if the backend does not know."""
        size = ctypes.POINTER(ctypes.c_size_t)
        ask = ggml_function("ggml_backend_dev_memory", None, ctypes.c_void_p, size, size)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        with native_settings():
            ask(device, ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value


def find_llama_devices(ggml: Ggml | None = None) -> LlamaDevices:
    """The GPUs that llama.cpp can use, with the memory that is free now.

    Args:
        ggml: The functions to ask, None for those of the installed llama.cpp.

    Raises:
        MissingDependencyError: llama-cpp-python is not installed.
    """
    ggml = ggml or NativeGgml()
    gpus = tuple(_gpus(ggml))
    return LlamaDevices(tuple(ggml.backends()), tuple(_once_each(gpus)))


def offload_devices(name: str | None) -> ctypes.Array[ctypes.c_void_p]:
    """What `llama_model_params.devices` points to so that only one GPU is used, or none.

    Args:
        name: llama.cpp's name of the GPU, None for the CPU alone. llama.cpp left to itself also
            uses a GPU for the prompts of a model that has no layer there.

    Raises:
        DeviceError: There is no such GPU, for example because it was there when the plan was made
            and is gone.
    """
    if name is None:
        return (ctypes.c_void_p * 1)()
    ggml = NativeGgml()
    named = {ggml.describe(device)[1]: device for device in ggml.devices() if device}
    if name not in named:
        raise DeviceError(
            f"The target was to run on {name}, but llama.cpp finds only {', '.join(named)}.",
            "Check that the GPU and its driver are there with `alignpro-lite doctor`, or use "
            "--device cpu.",
        )
    return (ctypes.c_void_p * 2)(named[name], None)


def _gpus(ggml: Ggml) -> Iterator[Accelerator]:
    for device in filter(None, ggml.devices()):
        kind, name, description = ggml.describe(device)
        if kind in (_GPU, _INTEGRATED_GPU):
            free, total = ggml.memory(device)
            # Metal calls every GPU discrete, those that share the memory too.
            shares = kind == _INTEGRATED_GPU or name.startswith(METAL)
            yield Accelerator(name, description, total, min(free, total), shares)


def _once_each(gpus: Sequence[Accelerator]) -> Iterable[Accelerator]:
    """Leave out what Vulkan finds if the vendor's own backend, which is faster, finds it too."""
    own = [gpu.description.lower() for gpu in gpus if gpu.backend not in _FOR_ANY_VENDOR]
    for gpu in gpus:
        # Vulkan adds the driver's name: "AMD Radeon RX 7900 XTX (RADV NAVI31)".
        if gpu.backend not in _FOR_ANY_VENDOR or not gpu.description.lower().startswith(
            tuple(name for name in own if name)
        ):
            yield gpu


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", errors="replace")
