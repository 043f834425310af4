"""Which GPU the target takes, and what the user is told, for the GPUs of each kind of machine."""

from __future__ import annotations

import pytest

from alignpro_lite.errors import DeviceError
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import Accelerator, DeviceRequest, LlamaDevices
from alignpro_lite.hardware.memory import MIN_MARGIN, PrompterNeeds, TargetNeeds
from alignpro_lite.hardware.plan import Plan, PlanningCase
from alignpro_lite.hardware.planner import make_plan
from alignpro_lite.hardware.system import Gpu, Hardware, Ram
from tests.support import gguf_writer

GIB = 1 << 30
RAM = Ram(16 * GIB, 12 * GIB)
MACHINE = Hardware((), RAM, 4)
ALL = DeviceRequest(n_gpu_layers=-1)

APPLE = Accelerator("MTL0", "Apple M2", 11 * GIB, 11 * GIB, shares_ram=True)
IRIS = Accelerator("Vulkan0", "Intel Iris Xe", 12 * GIB, 12 * GIB, shares_ram=True)
RADEON = Accelerator("Vulkan1", "AMD Radeon RX 7600", 8 * GIB, 7 * GIB)
INSTINCT = Accelerator("ROCm0", "AMD Instinct MI210", 64 * GIB, 63 * GIB)
BUSY = Accelerator("CUDA0", "NVIDIA RTX A6000", 48 * GIB, 2 * GIB)
IDLE = Accelerator("CUDA1", "NVIDIA RTX 3060", 12 * GIB, 11 * GIB)
MUTE = Accelerator("GPUOpenCL", "QUALCOMM Adreno", 0, 0)
ARC = Accelerator("SYCL0", "Intel Arc A770", 16 * GIB, 15 * GIB)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    """A model of 3 billion weights; its Q4_K matrices take 1.6 GB."""
    metadata, tensors = gguf_writer.decoder(
        name="3B",
        n_layers=28,
        embedding=3072,
        feed_forward=8192,
        n_head=24,
        n_head_kv=8,
        vocab=32000,
        context=32768,
        matrix_type="Q4_K",
        embedding_type="Q4_K",
        output_type=None,
    )
    path = tmp_path_factory.mktemp("model") / "3b.gguf"
    return read_header(gguf_writer.write(path, metadata, tensors))


def plan(
    model: GgufFile,
    *gpus: Accelerator,
    request: DeviceRequest = DeviceRequest(),
    hardware: Hardware = MACHINE,
    backends: tuple[str, ...] = (),
    prompter: PrompterNeeds | None = None,
) -> Plan:
    names = backends or (*dict.fromkeys(gpu.backend for gpu in gpus), "CPU")
    target = TargetNeeds(model, LlamaDevices(names, gpus), 256, 16)
    return make_plan(PlanningCase(request, target, prompter, hardware))


@pytest.mark.parametrize(
    ("gpus", "chosen"),
    [
        ((APPLE,), "Metal (Apple M2, 11.8 GB of the machine's memory free)"),
        ((INSTINCT,), "ROCm0 (AMD Instinct MI210, 67.6 GB free)"),
        ((ARC,), "SYCL0 (Intel Arc A770, 16.1 GB free)"),
        ((IRIS,), "Vulkan0 (Intel Iris Xe, 12.9 GB of the machine's memory free)"),
        ((IRIS, RADEON), "Vulkan1 (AMD Radeon RX 7600, 7.5 GB free), chosen of 2 GPUs"),
        ((BUSY, IDLE), "CUDA1 (NVIDIA RTX 3060, 11.8 GB free), chosen of 2 GPUs"),
        ((MUTE, RADEON), "Vulkan1 (AMD Radeon RX 7600, 7.5 GB free), chosen of 2 GPUs"),
    ],
)
@pytest.mark.parametrize(
    "request_", [DeviceRequest(), ALL, DeviceRequest("gpu"), DeviceRequest("gpu", -1)]
)
def test_a_gpu_of_any_backend_takes_the_whole_target(
    model: GgufFile, gpus: tuple[Accelerator, ...], chosen: str, request_: DeviceRequest
) -> None:
    """Regression: `--n-gpu-layers -1` failed on a Mac with "no NVIDIA GPU"."""
    made = plan(model, *gpus, request=request_)
    assert made.n_gpu_layers == 29
    assert made.notes == (f"The target runs on {chosen}.",)


def test_a_full_gpu_of_its_own_goes_after_one_that_shares_the_memory(model: GgufFile) -> None:
    full = Accelerator("Vulkan1", "AMD Radeon", 8 * GIB, MIN_MARGIN)
    assert plan(model, IRIS, full).gpu == IRIS


def test_no_gpu_means_the_cpu_and_says_so(model: GgufFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = plan(model)
    assert (made.device, made.n_gpu_layers) == ("cpu", 0)
    assert made.notes == ("The target runs on the CPU, because no GPU was found.",)
    with pytest.raises(DeviceError, match="A GPU was asked for, but no GPU was found"):
        plan(model, request=ALL)


def test_hidden_gpus_are_a_reason(model: GgufFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is set" in plan(model).notes[0]


@pytest.mark.parametrize(
    ("hardware", "backends", "reason", "cure"),
    [
        (Hardware((Gpu(0, "RTX 4090", 1, 1),), RAM, 4), ("CPU",), "CUDA, .* RTX 4090", "CUDA=on"),
        (Hardware((), RAM, 4, ("AMD",)), ("CPU",), "Vulkan, .* GPU of AMD", "VULKAN=on"),
        (Hardware((), RAM, 4, ("Intel",)), ("CPU",), "Vulkan, .* GPU of Intel", "VULKAN=on"),
        (Hardware((), RAM, 4, ("Apple",)), ("CPU",), "Metal, .* GPU of Apple", "METAL=on"),
        (Hardware((), RAM, 4, ("AMD",)), ("ROCm", "CPU"), r"\(ROCm, CPU\) does not find", "driver"),
    ],
)
def test_a_gpu_that_llama_cpp_cannot_use_is_named_with_the_cure(
    model: GgufFile, hardware: Hardware, backends: tuple[str, ...], reason: str, cure: str
) -> None:
    (note,) = plan(model, hardware=hardware, backends=backends).notes
    assert cure in note
    with pytest.raises(DeviceError, match=reason) as caught:
        plan(model, hardware=hardware, backends=backends, request=DeviceRequest("gpu"))
    assert cure in caught.value.cure
    assert plan(model, hardware=hardware, backends=backends, request=DeviceRequest("cpu"))


def test_cuda_is_not_another_gpu(model: GgufFile) -> None:
    with pytest.raises(DeviceError, match="no NVIDIA GPU was found"):
        plan(model, RADEON, request=DeviceRequest("cuda"))


def test_a_gpu_that_does_not_report_its_memory_is_for_those_who_insist(model: GgufFile) -> None:
    made = plan(model, MUTE)
    assert made.device == "cpu"
    assert "does not report its memory. Pass --n-gpu-layers -1" in made.notes[0]
    made = plan(model, MUTE, request=ALL)
    assert (made.device, made.n_gpu_layers, made.context) == ("GPUOpenCL", 29, 2048)
    assert "which does not report its memory" in made.notes[0]


def test_a_gpu_without_free_memory_is_not_used(model: GgufFile) -> None:
    full = Accelerator("CUDA0", "NVIDIA RTX 3060", 12 * GIB, 0)
    made = plan(model, full)
    assert made.device == "cpu"
    assert "CUDA0 (NVIDIA RTX 3060) has only 0 B of 12.9 GB free" in made.notes[0]
    with pytest.raises(DeviceError, match="29 of 29 layers on the GPU needs"):
        plan(model, full, request=ALL)


def test_a_gpu_that_shares_the_memory_takes_no_more_than_the_machine_has(model: GgufFile) -> None:
    """Metal reports what it would give to a machine on which nothing else runs."""
    busy = Hardware((), Ram(16 * GIB, GIB), 4)
    made = plan(model, APPLE, hardware=busy)
    assert 0 < made.n_gpu_layers < 29
    assert made.on_gpu.total_bytes + made.on_cpu.allocated_bytes <= GIB - MIN_MARGIN


def test_the_prompter_may_take_the_other_card(model: GgufFile) -> None:
    """It was put on the CPU when the target filled the GPU with most free memory."""
    small, large = Gpu(0, "small", 2 * GIB, 2 * GIB), Gpu(1, "large", 3 * GIB, 3 * GIB)
    hardware = Hardware((small, large), RAM, 4)
    found = [
        Accelerator(f"CUDA{it.index}", it.name, it.total_bytes, it.free_bytes)
        for it in hardware.gpus
    ]
    prompter = PrompterNeeds(GIB, built_for_cuda=True, engine_has_cuda=True)
    made = plan(model, *found, hardware=hardware, prompter=prompter)
    assert (made.device, made.prompter_gpu) == ("CUDA1", small)
    assert made.on_gpu.prompter_bytes == made.on_cpu.prompter_bytes == 0


def test_vulkan_and_nvml_mean_the_same_card_by_its_name(model: GgufFile) -> None:
    card = Gpu(0, "NVIDIA RTX 2060", 3 * GIB, 3 * GIB)
    vulkan = Accelerator("Vulkan0", card.name, 3 * GIB, 3 * GIB)
    prompter = PrompterNeeds(GIB, built_for_cuda=True, engine_has_cuda=True)
    made = plan(model, vulkan, hardware=Hardware((card,), RAM, 4), prompter=prompter)
    assert (made.device, made.prompter_device) == ("Vulkan0", "cpu")
