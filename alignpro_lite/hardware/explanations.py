"""What the user is told about a plan: notes on a good one, and the error if nothing fits."""

from __future__ import annotations

import os
from collections.abc import Iterator

from alignpro_lite.errors import DeviceError
from alignpro_lite.hardware.device import METAL, Accelerator, DeviceRequest
from alignpro_lite.hardware.memory import Footprint, format_bytes, usable_bytes
from alignpro_lite.hardware.plan import Plan, PlanningCase

ONNX_CUDA_CURE = 'Run `pip install "alignpro-lite[cuda]"`'
_BACKENDS = {
    "NVIDIA": ("CUDA", "Vulkan"),
    "AMD": ("Vulkan", "ROCm"),
    "Intel": ("Vulkan", "SYCL"),
    "Apple": (METAL,),
}
"""llama.cpp's backends for the GPUs of each vendor; the first is the one to recommend."""
_TITLES = {METAL: "Metal"}


def plan_notes(case: PlanningCase, plan: Plan) -> Iterator[str]:
    """What the user should know about a plan, a sentence each."""
    request, ram = case.request, case.hardware.ram
    if plan.gpu:
        yield from _where_target_is(case, plan, plan.gpu)
    elif request.device != "cpu" and request.n_gpu_layers != 0:
        yield _why_target_on_cpu(case)
    if plan.n_gpu_layers and case.prompter and plan.prompter_device == "cpu":
        yield _why_prompter_on_cpu(case)
    if plan.context < case.wanted_context:
        yield (
            f"The context was lowered from {case.wanted_context} to {plan.context} tokens "
            "to fit the memory."
        )
    if plan.ram_bytes > ram.available_bytes:
        yield (
            f"The models need {format_bytes(plan.ram_bytes)} of RAM and "
            f"{format_bytes(ram.available_bytes)} are available: expect slow answers, because "
            "weights are read from disk again and again."
        )


def gpu_text(gpu: Accelerator) -> str:
    """A GPU for people: `CUDA0 (NVIDIA GeForce RTX 4090, 20.1 GB free)`."""
    title = _TITLES.get(gpu.backend, gpu.name)
    if not gpu.reports_memory:
        return f"{title} ({gpu.description}, which does not report its memory)"
    shared = " of the machine's memory" if gpu.shares_ram else ""
    return f"{title} ({gpu.description}, {format_bytes(gpu.free_bytes)}{shared} free)"


def why_no_gpu(case: PlanningCase) -> tuple[str, str]:
    """Why llama.cpp offers no GPU for a request, and the beginning of a cure."""
    cards = list(_cards(case))
    installed = case.target.devices.backends
    for backends, name in cards:
        if not set(backends) & set(installed):
            title = _TITLES.get(backends[0], backends[0])
            return (
                f"llama.cpp was built without {title}, although there is {name}",
                f'Run `CMAKE_ARGS="-DGGML_{title.upper()}=on" pip install --force-reinstall '
                "--no-cache-dir llama-cpp-python`",
            )
    if cards:
        return (
            f"llama.cpp ({', '.join(installed)}) does not find {cards[0][1]}",
            "Check its driver",
        )
    hidden = " (CUDA_VISIBLE_DEVICES is set)" if "CUDA_VISIBLE_DEVICES" in os.environ else ""
    what = "NVIDIA GPU" if case.request.device == "cuda" else "GPU"
    return f"no {what} was found{hidden}", "Check its driver"


def _cards(case: PlanningCase) -> Iterator[tuple[tuple[str, ...], str]]:
    """The GPUs that the system shows: the backends that could use each, and what to call it."""
    only_cuda = case.request.device == "cuda"
    for gpu in case.hardware.gpus:
        yield ("CUDA",) if only_cuda else _BACKENDS["NVIDIA"], gpu.name
    for vendor in () if only_cuda else case.hardware.other_gpus:
        yield _BACKENDS[vendor], f"a GPU of {vendor}"


def shortage(case: PlanningCase, longest_context: int) -> DeviceError:
    """The error if no allowed plan fits.

    Args:
        case: What was to be planned.
        longest_context: The longest context that would fit, 0 for none.
    """
    return DeviceError(_what_is_short(case), _what_would_fit(case.request, longest_context))


def _what_is_short(case: PlanningCase) -> str:
    plan = case.closest(case.shortest_context)
    subject = f"{case.target.gguf.path.name} with {plan.context} tokens of context"
    if case.gpu_left(plan) >= 0:
        ram, shared = case.hardware.ram, plan.shared_bytes
        and_shared = f" and {format_bytes(shared)} for the GPU that shares it" if shared else ""
        return (
            f"{subject} needs {_breakdown(plan.on_cpu)} of RAM{and_shared}; of "
            f"{format_bytes(ram.total_bytes)}, {format_bytes(ram.available_bytes)} are available, "
            f"{format_bytes(usable_bytes(ram.available_bytes))} for buffers."
        )
    return (
        f"{subject} and {plan.n_gpu_layers} of {case.all_layers} layers on the GPU needs "
        f"{_breakdown(plan.on_gpu)} there, {format_bytes(case.target_room)} can be used."
    )


def _what_would_fit(request: DeviceRequest, longest_context: int) -> str:
    if request.ctx and longest_context:
        return f"Use --ctx {longest_context} or less."
    if request.n_gpu_layers:
        return "Use fewer --n-gpu-layers, or leave the option out."
    return "Use a smaller or more strongly quantised model, or free some memory."


def _breakdown(footprint: Footprint) -> str:
    return (
        f"{format_bytes(footprint.total_bytes)} (weights {format_bytes(footprint.weight_bytes)}, "
        f"KV cache {format_bytes(footprint.kv_bytes)}, "
        f"buffers {format_bytes(footprint.compute_bytes)}, "
        f"prompter {format_bytes(footprint.prompter_bytes)})"
    )


def _where_target_is(case: PlanningCase, plan: Plan, gpu: Accelerator) -> Iterator[str]:
    all_layers, count = case.all_layers, len(case.gpus)
    chosen = f", chosen of {count} GPUs" if count > 1 else ""
    yield f"The target runs on {gpu_text(gpu)}{chosen}."
    if plan.n_gpu_layers < all_layers and case.request.n_gpu_layers is None:
        yield (
            f"{plan.n_gpu_layers} of {all_layers} layers of the target fit there; the others run "
            "on the CPU."
        )


def _why_target_on_cpu(case: PlanningCase) -> str:
    gpu = case.gpu
    if gpu is None:
        reason, cure = why_no_gpu(case)
        known = any(_cards(case))
        return f"The target runs on the CPU, because {reason}.{f' {cure}.' if known else ''}"
    if not gpu.reports_memory:
        return (
            f"The target runs on the CPU, because {gpu.name} ({gpu.description}) does not report "
            "its memory. Pass --n-gpu-layers -1, or fewer layers, to use it."
        )
    free = format_bytes(case.free_bytes(gpu))
    return (
        f"The target runs on the CPU, because {gpu.name} ({gpu.description}) has only {free} of "
        f"{format_bytes(gpu.total_bytes)} free."
    )


def _why_prompter_on_cpu(case: PlanningCase) -> str:
    prompter = case.prompter
    if prompter is None or not prompter.built_for_cuda:
        return (
            "The prompter's bundle is built for the CPU, so the prompter stays there; "
            "--prompter self lets the target write the rewrites on its GPU."
        )
    if not prompter.engine_has_cuda:
        return (
            "The prompter runs on the CPU, because onnxruntime cannot use CUDA. "
            f"{ONNX_CUDA_CURE} to change that."
        )
    return (
        f"The prompter runs on the CPU, because the target leaves less than the "
        f"{format_bytes(prompter.n_bytes)} that it needs on an NVIDIA GPU."
    )
