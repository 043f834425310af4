"""One plan for both models, or an error that says why there is none.

Planning is arithmetic on the header of the target: it touches no device. `memory` says what a model
takes, `plan` which plan is best, `explanations` what the user is told.
"""

from __future__ import annotations

from dataclasses import replace

from alignpro_lite.errors import DeviceError, InputError
from alignpro_lite.gguf.header import GgufFile
from alignpro_lite.hardware.device import DeviceRequest
from alignpro_lite.hardware.explanations import (
    ONNX_CUDA_CURE,
    plan_notes,
    shortage,
    why_no_gpu,
)
from alignpro_lite.hardware.plan import Plan, PlanningCase


def make_plan(case: PlanningCase) -> Plan:
    """Decide which layers go where, how long the context is and where the prompter runs.

    Returns:
        A plan that leaves the margin free on every device.

    Raises:
        InputError: The request contradicts itself or the model.
        DeviceError: This hardware or these engines cannot do what was asked for.
        ModelFileError: The header lacks a number that is needed.
    """
    _check_request(case.request, case.target.gguf)
    if case.request.insists_on_gpu:
        _require_gpu(case)
    longest = case.longest_context()
    plan = case.best(longest) if longest >= case.shortest_context else None
    if plan is None:
        raise shortage(case, max(0, longest - case.prompter_context))
    plan = case.with_more_context(plan)
    return replace(plan, notes=tuple(plan_notes(case, plan)))


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
    if request.device in ("gpu", "cuda") and layers == 0:
        raise InputError(
            f"--device {request.device} contradicts --n-gpu-layers 0.", "Leave one of them out."
        )
    if ctx is not None and not 1 <= ctx <= gguf.context_length:
        raise InputError(
            f"--ctx is {ctx}, but {gguf.path.name} was trained for 1 to "
            f"{gguf.context_length} tokens.",
            f"Use --ctx {gguf.context_length} or less.",
        )


def _require_gpu(case: PlanningCase) -> None:
    """Refuse a request for a GPU that would quietly end up on the CPU."""
    asked = "A CUDA device" if case.request.device == "cuda" else "A GPU"
    if case.gpu is None:
        reason, cure = why_no_gpu(case)
        raise DeviceError(
            f"{asked} was asked for, but {reason}.",
            f"{cure}, or leave out --device and --n-gpu-layers.",
        )
    prompter = case.prompter if case.request.device == "cuda" else None
    if prompter and prompter.built_for_cuda and not prompter.engine_has_cuda:
        raise DeviceError(
            f"{asked} was asked for, but onnxruntime cannot use CUDA.",
            f"{ONNX_CUDA_CURE}, or use --device auto.",
        )
