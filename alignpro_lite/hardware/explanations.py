"""What the user is told about a plan: notes on a good one, and the error if nothing fits."""

from __future__ import annotations

from collections.abc import Iterator

from alignpro_lite.errors import DeviceError
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.hardware.memory import (
    Footprint,
    PrompterNeeds,
    TargetNeeds,
    format_bytes,
    usable_bytes,
)
from alignpro_lite.hardware.plan import Plan, PlanningCase
from alignpro_lite.hardware.system import Gpu

LLAMA_CUDA_CURE = (
    'Run `CMAKE_ARGS="-DGGML_CUDA=on" pip install --force-reinstall --no-cache-dir '
    "llama-cpp-python`"
)
ONNX_CUDA_CURE = 'Run `pip install "alignpro-lite[cuda]"`'


def plan_notes(case: PlanningCase, plan: Plan) -> Iterator[str]:
    """What the user should know about a plan, a sentence each."""
    request, gpu, ram = case.request, case.gpu, case.hardware.ram
    if request.device == "auto" and plan.n_gpu_layers == 0 and request.n_gpu_layers != 0:
        yield _why_target_on_cpu(gpu, case.target)
    if gpu and 0 < plan.n_gpu_layers < case.all_layers and request.n_gpu_layers is None:
        yield (
            f"{plan.n_gpu_layers} of {case.all_layers} layers of the target fit on "
            f"{gpu.name} with {format_bytes(gpu.free_bytes)} free; the others run on the CPU."
        )
    if plan.n_gpu_layers and case.prompter and plan.prompter_device == "cpu":
        yield _why_prompter_on_cpu(case.prompter)
    if plan.context < case.wanted_context:
        yield (
            f"The context was lowered from {case.wanted_context} to {plan.context} tokens "
            "to fit the memory."
        )
    if plan.on_cpu.total_bytes > ram.available_bytes:
        yield (
            f"The models need {format_bytes(plan.on_cpu.total_bytes)} of RAM and "
            f"{format_bytes(ram.available_bytes)} are available: expect slow answers, because "
            "weights are read from disk again and again."
        )


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
    if case.fits_gpu(plan):
        ram = case.hardware.ram
        return (
            f"{subject} needs {_breakdown(plan.on_cpu)} of RAM; of "
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


def _why_target_on_cpu(gpu: Gpu | None, target: TargetNeeds) -> str:
    if gpu is None:
        return "No NVIDIA GPU was found, so everything runs on the CPU."
    if not target.engine_has_cuda:
        return (
            f"The target runs on the CPU although there is {gpu.name}, because llama-cpp-python "
            f"was built without CUDA. {LLAMA_CUDA_CURE} to change that."
        )
    return (
        f"The target runs on the CPU, because {gpu.name} has only "
        f"{format_bytes(gpu.free_bytes)} of {format_bytes(gpu.total_bytes)} free."
    )


def _why_prompter_on_cpu(prompter: PrompterNeeds) -> str:
    if not prompter.built_for_cuda:
        return "The prompter's bundle is built for the CPU, so the prompter stays there."
    if not prompter.engine_has_cuda:
        return (
            "The prompter runs on the CPU, because onnxruntime cannot use CUDA. "
            f"{ONNX_CUDA_CURE} to change that."
        )
    return (
        f"The prompter runs on the CPU, because the target leaves less than the "
        f"{format_bytes(prompter.n_bytes)} that it needs on the GPU."
    )
