"""The GPUs of llama.cpp's backends: lists as each kind of machine gives them, and the real one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest

from alignpro_lite.decoding.backends import find_llama_devices, offload_devices
from alignpro_lite.decoding.conversation import Message
from alignpro_lite.decoding.llamacpp import ggml_function
from alignpro_lite.decoding.sampling import Sampling
from alignpro_lite.errors import DeviceError, MissingDependencyError
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import Accelerator
from alignpro_lite.target.llama import TargetSettings
from alignpro_lite.target.question import Question
from alignpro_lite.target.target import LlamaTarget
from tests.support import TINY_TARGET

GIB = 1 << 30
CPU, GPU, INTEGRATED, BLAS = 0, 1, 2, 3


@dataclass(frozen=True)
class FakeDevice:
    """What a backend says of a device."""

    kind: int
    name: str
    description: str
    free: int
    total: int


class FakeGgml:
    """Backends with given devices; None is one that is gone."""

    def __init__(self, *devices: FakeDevice | None) -> None:
        self._devices = devices

    def backends(self) -> list[str]:
        return list({it.name.rstrip("0123456789"): it for it in self._devices if it})

    def devices(self) -> list[FakeDevice | None]:
        return list(self._devices)

    def describe(self, device: FakeDevice) -> tuple[int, str, str]:
        return device.kind, device.name, device.description

    def memory(self, device: FakeDevice) -> tuple[int, int]:
        return device.free, device.total


PROCESSOR = FakeDevice(CPU, "CPU", "AMD EPYC", 8 * GIB, 16 * GIB)
RTX = FakeDevice(GPU, "CUDA0", "NVIDIA GeForce RTX 4090", 20 * GIB, 24 * GIB)
RTX_AGAIN = FakeDevice(GPU, "Vulkan0", "NVIDIA GeForce RTX 4090", 21 * GIB, 24 * GIB)
RADEON = FakeDevice(GPU, "ROCm0", "AMD Radeon RX 7900 XTX", 23 * GIB, 24 * GIB)
RADEON_AGAIN = FakeDevice(
    GPU, "Vulkan1", "AMD Radeon RX 7900 XTX (RADV NAVI31)", 24 * GIB, 24 * GIB
)
IRIS = FakeDevice(INTEGRATED, "Vulkan0", "Intel(R) Iris(R) Xe Graphics", 7 * GIB, 8 * GIB)
ARC = FakeDevice(GPU, "SYCL0", "Intel(R) Arc(TM) A770 Graphics", 15 * GIB, 16 * GIB)
APPLE = FakeDevice(GPU, "MTL0", "Apple M2", 11 * GIB, 11 * GIB)


def names(*devices: FakeDevice | None) -> list[str]:
    return [gpu.name for gpu in find_llama_devices(FakeGgml(*devices)).gpus]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ((PROCESSOR,), []),
        ((FakeDevice(BLAS, "BLAS", "Accelerate", 0, 0), PROCESSOR), []),
        ((RTX, PROCESSOR), ["CUDA0"]),
        ((APPLE, PROCESSOR), ["MTL0"]),
        ((IRIS, RADEON_AGAIN, PROCESSOR), ["Vulkan0", "Vulkan1"]),
        ((RADEON, PROCESSOR), ["ROCm0"]),
        ((ARC, PROCESSOR), ["SYCL0"]),
        ((RTX, RTX_AGAIN, PROCESSOR), ["CUDA0"]),
        ((RADEON, RTX_AGAIN, RADEON_AGAIN, PROCESSOR), ["ROCm0", "Vulkan0"]),
        ((None, RADEON, PROCESSOR), ["ROCm0"]),
    ],
)
def test_gpus_are_found_once_each(
    devices: tuple[FakeDevice | None, ...], expected: list[str]
) -> None:
    assert names(*devices) == expected


def test_metal_and_integrated_gpus_share_the_memory_of_the_machine() -> None:
    """Regression: llama.cpp calls an Apple GPU discrete, and its memory was nobody's else."""
    found = find_llama_devices(FakeGgml(APPLE, IRIS, RADEON))
    assert [gpu.shares_ram for gpu in found.gpus] == [True, True, False]


def test_a_gpu_without_a_description_is_no_double_of_all_others() -> None:
    silent = FakeDevice(GPU, "CANN0", "", 8 * GIB, 8 * GIB)
    assert names(silent, IRIS) == ["CANN0", "Vulkan0"]


def test_more_free_memory_than_there_is_is_not_believed() -> None:
    lying = FakeDevice(GPU, "Vulkan0", "GPU", 9 * GIB, 8 * GIB)
    (gpu,) = find_llama_devices(FakeGgml(lying)).gpus
    assert gpu == Accelerator("Vulkan0", "GPU", 8 * GIB, 8 * GIB)


def test_the_installed_llama_cpp_lists_its_devices() -> None:
    found = find_llama_devices()
    assert "CPU" in found.backends
    if shutil.which("nvidia-smi") is None:
        assert not any(gpu.backend == "CUDA" for gpu in found.gpus)


def test_a_function_that_llama_cpp_does_not_have_is_an_error() -> None:
    with pytest.raises(MissingDependencyError, match="has no ggml_frobnicate"):
        ggml_function("ggml_frobnicate", None)


def settings(gpu: str | None, n_gpu_layers: int) -> TargetSettings:
    return TargetSettings(256, 2, n_gpu_layers, gpu, 1)


def test_a_gpu_that_vanished_after_the_plan_is_an_error() -> None:
    """It was in the list when the plan was made, for example on a Thunderbolt cable."""
    with pytest.raises(DeviceError, match=r"run on Vulkan7, but llama\.cpp finds only .*CPU"):
        LlamaTarget(TINY_TARGET, read_header(TINY_TARGET), settings("Vulkan7", 1))


def test_layers_are_put_on_the_device_of_a_name() -> None:
    """llama.cpp takes any device; the CPU's own is the one that every machine has."""
    file = read_header(TINY_TARGET)
    question = Question([Message("user", "Hello")], 8, Sampling(temperature=0))
    texts = []
    for chosen in (settings(None, 0), settings("CPU", file.n_layers + 1)):
        with LlamaTarget(TINY_TARGET, file, chosen) as target:
            texts.append(["".join(stream) for stream in target.answer(question)])
    assert texts[0] == texts[1]


def test_no_device_means_an_empty_list() -> None:
    assert list(offload_devices(None)) == [None]
