"""`alignpro-lite doctor`: what is installed, what works, and how to fix the rest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import click

from alignpro_lite.cli.options import ModelOptions, model_options
from alignpro_lite.cli.output import one_line
from alignpro_lite.errors import AlignProError, DeviceError
from alignpro_lite.hardware.memory import format_bytes


@click.command()
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(models: ModelOptions, as_json: bool) -> None:
    """Report versions, hardware and the plan for the models, and try both engines.

    Each engine tries its model in a process of its own. Exit code 1 means that
    something is broken; the report says how to fix it.
    """
    report = _examine(models)
    click.echo(json.dumps(report, indent=2) if as_json else _as_text(report))
    broken = [probe["engine"] for probe in report["probes"] if not probe["works"]]
    if broken:
        raise DeviceError(
            f"Not working: {' and '.join(broken)}.", "The report above says how to fix it."
        )


def _examine(options: ModelOptions) -> dict[str, Any]:
    from alignpro_lite import doctor as library
    from alignpro_lite.hardware.system import find_hardware

    devices, store = options.devices(), options.open_store()
    cache = store.cache.root
    probes = (
        library.probe_target(options.target, devices, store),
        library.probe_prompter(options.prompter, options.target, devices, store),
    )
    return {
        "versions": library.versions(),
        "hardware": asdict(find_hardware()),
        "engines": _engines(),
        "llama.cpp": _llama(),
        "cache": {
            "folder": str(cache),
            "bytes": library.folder_size(cache),
            "free_bytes": library.free_space(cache),
        },
        "plan": _plan(options),
        "probes": [asdict(probe) for probe in probes],
    }


def _engines() -> dict[str, Any]:
    from alignpro_lite.decoding import ort

    checks: dict[str, Callable[[], bool | str]] = {
        "llama.cpp's backends and GPUs": _llama_devices,
        "onnxruntime was built with CUDA": ort.supports_cuda,
    }
    if sys.platform == "win32":
        checks["the Visual C++ runtime is installed"] = _has_vc_runtime
    found: dict[str, Any] = {}
    for name, check in checks.items():
        try:
            found[name] = check()
        except AlignProError as error:
            found[name] = str(error)
    return found


def _has_vc_runtime() -> bool:
    from alignpro_lite.hardware.vc_runtime import require_vc_runtime

    require_vc_runtime()
    return True


def _llama_devices() -> str:
    from alignpro_lite.decoding.backends import find_llama_devices
    from alignpro_lite.hardware.explanations import gpu_text

    devices = find_llama_devices()
    gpus = ", ".join(map(gpu_text, devices.gpus)) or "no GPU"
    return f"{', '.join(devices.backends)}; {gpus}"


def _llama() -> dict[str, Any]:
    from alignpro_lite import doctor as library

    try:
        return asdict(library.llama_report())
    except AlignProError as error:
        return {"trouble": str(error)}


def _plan(options: ModelOptions) -> dict[str, Any]:
    from alignpro_lite.loading import plan_models

    try:
        store = options.open_store()
        planned = plan_models(options.target, options.prompter, store, options.devices())
        return asdict(planned.plan)
    except AlignProError as error:
        return {"trouble": str(error)}


def _as_text(report: dict[str, Any]) -> str:
    lines = ["Versions"]
    lines += [f"  {name:18} {found or '-'}" for name, found in report["versions"].items()]
    hardware = report["hardware"]
    lines += ["Hardware", f"  cores              {hardware['cores']}"]
    lines.append(f"  memory             {format_bytes(hardware['ram']['total_bytes'])}")
    lines += [
        f"  GPU {gpu['index']}              {gpu['name']}, "
        f"{format_bytes(gpu['free_bytes'])} free of {format_bytes(gpu['total_bytes'])}"
        for gpu in hardware["gpus"]
    ]
    lines += [f"  GPU                of {vendor}" for vendor in hardware["other_gpus"]]
    if not hardware["gpus"] and not hardware["other_gpus"]:
        lines.append("  GPU                none found")
    lines.append("Engines")
    lines += [f"  {name}: {_yes(found)}" for name, found in report["engines"].items()]
    lines += ["llama.cpp", *_llama_lines(report["llama.cpp"])]
    cache = report["cache"]
    lines.append("Cache")
    lines.append(
        f"  {cache['folder']}: {format_bytes(cache['bytes'])} used, "
        f"{format_bytes(cache['free_bytes'])} free"
    )
    lines += ["Plan", *_plan_lines(report["plan"]), "Test: each engine with its model"]
    for probe in report["probes"]:
        done = f"works on {probe['device']}, {probe['seconds']:.1f} s with loading"
        lines.append(f"  {probe['engine']:9} {done if probe['works'] else probe['trouble']}")
    return "\n".join(lines)


def _llama_lines(llama: dict[str, Any]) -> list[str]:
    if "trouble" in llama:
        return [f"  {llama['trouble']}"]
    lines = [f"  compiled for       {' '.join(llama['instruction_sets']) or 'any CPU'}"]
    if llama["version"] != llama["tested_version"]:
        lines.append(
            f"  llama-cpp-python {llama['version']} was not tested, {llama['tested_version']} was; "
            "it is used if the test below passes"
        )
    if llama["faster_build"]:
        lines.append(
            f"  this CPU also has  {' '.join(llama['unused_sets'])}: a build that uses them is "
            f"faster, `{llama['faster_build']}`"
        )
    return lines


def _plan_lines(plan: dict[str, Any]) -> list[str]:
    if "trouble" in plan:
        return [f"  {plan['trouble']}"]
    lines = [
        f"  target on {plan['gpu']['name'] if plan['gpu'] else 'cpu'}, {plan['n_gpu_layers']} of "
        f"{plan['n_layers'] + 1} layers on the GPU, {plan['threads']} threads",
        f"  context of {plan['longest']} tokens for a conversation, {plan['context']} for all that "
        "run together",
        f"  prompter on {plan['prompter_device']}"
        if plan["prompter_device"]
        else "  the target is its own prompter",
    ]
    for place, name in (("on_gpu", "GPU"), ("on_cpu", "memory")):
        parts = {key.removesuffix("_bytes"): size for key, size in plan[place].items() if size}
        if parts:
            listed = ", ".join(f"{key} {format_bytes(size)}" for key, size in parts.items())
            lines.append(f"  {name}: {listed}")
    return lines + [f"  {one_line(note)}" for note in plan["notes"]]


def _yes(found: bool | str) -> str:
    return found if isinstance(found, str) else "yes" if found else "no"
