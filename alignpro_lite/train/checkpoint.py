"""Checkpoints of a prompter run: safetensors and JSON, in a folder that appears whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignpro_lite.errors import ModelFileError
from alignpro_lite.train.plateau import Measurement
from alignpro_lite.train.rollout import Group

_PREFIX = "checkpoint-"
_PARTIAL = ".partial"
_WEIGHTS = "adapter.safetensors"
_OPTIMISER = "optimiser.safetensors"
_BEST = "best.safetensors"


@dataclass(frozen=True)
class ProcessState:
    """What one process of a run has to remember besides the weights.

    Random streams are derived from the seed and the step, so there is none to store.

    Attributes:
        step: Steps done.
        processes: How many take part in the run.
        groups: The replay buffer, oldest first.
        calls: Answers asked of the target so far, over all processes.
        failures: Failed items in each of the last steps, over all processes.
        items: All items in each of the last steps, over all processes.
        history: The rewards on the prompts set apart, where there are any.
    """

    step: int
    processes: int
    groups: tuple[Group, ...]
    calls: int
    failures: tuple[int, ...]
    items: tuple[int, ...]
    history: tuple[Measurement, ...] = ()


def save_weights(
    folder: Path, parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> None:
    """Write the trained parameters and the optimiser's averages."""
    save_file({name: value.detach().cpu() for name, value in parameters.items()}, folder / _WEIGHTS)
    averages = {
        f"{name}|{key}": torch.as_tensor(value).detach().cpu()
        for name, parameter in parameters.items()
        for key, value in optimiser.state[parameter].items()
    }
    save_file(averages, folder / _OPTIMISER)


def load_weights(
    folder: Path, parameters: Mapping[str, nn.Parameter], optimiser: torch.optim.Optimizer
) -> None:
    """Read what `save_weights` wrote into the parameters and the optimiser.

    Raises:
        ModelFileError: The files are damaged or belong to another adapter.
    """
    weights = _tensors(folder / _WEIGHTS)
    if weights.keys() != parameters.keys():
        raise ModelFileError(
            f"{folder} holds another adapter: {len(weights.keys() ^ parameters.keys())} tensors "
            "have no counterpart.",
            "Train into another folder with --output.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    for key, value in _tensors(folder / _OPTIMISER).items():
        name, _, what = key.rpartition("|")
        parameter = parameters[name]
        optimiser.state[parameter][what] = value if what == "step" else _like(value, parameter)


def save_best(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the parameters of the best step so far."""
    save_file(dict(weights), folder / _BEST)


def load_best(folder: Path) -> dict[str, Tensor]:
    """Read what `save_best` wrote; empty if it wrote nothing.

    Raises:
        ModelFileError: The file is damaged.
    """
    return _tensors(folder / _BEST) if (folder / _BEST).is_file() else {}


def _tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{file} cannot be read ({error}).",
        f"Delete {file.parent} to start over, or train into another folder with --output.",
    )


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    return value.to(device=parameter.device, dtype=parameter.dtype)


def save_state(folder: Path, rank: int, state: ProcessState) -> None:
    """Write what a process has to remember."""
    # json, because msgspec writes a number that is not finite as null.
    (folder / _state_name(rank)).write_text(json.dumps(msgspec.to_builtins(state)), "utf-8")


def load_state(folder: Path, rank: int) -> ProcessState:
    """Read what `save_state` wrote.

    Raises:
        ModelFileError: The run had fewer processes, or the file is damaged.
    """
    file = folder / _state_name(rank)
    if not file.is_file():
        raise ModelFileError(
            f"{folder} has no state of process {rank}.",
            "Resume with as many processes as the run was started with.",
        )
    try:
        return msgspec.convert(json.loads(file.read_text("utf-8")), ProcessState)
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from error


def _state_name(rank: int) -> str:
    return f"process-{rank}.json"


def partial(run: Path, step: int) -> Path:
    """Where a checkpoint is written before it is published; `latest` does not see it."""
    return run / f"{_PREFIX}{step:06d}{_PARTIAL}"


def create_empty(folder: Path) -> None:
    """Create the folder of `partial`, without what a killed run left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def publish(folder: Path) -> None:
    """Make a checkpoint visible and durable, and remove older ones."""
    for file in folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    done = folder.with_name(folder.name.removesuffix(_PARTIAL))
    if done.exists():
        shutil.rmtree(done)
    folder.rename(done)
    for old in _published(folder.parent):
        if old != done:
            shutil.rmtree(old)


def latest(run: Path) -> Path | None:
    """The newest published checkpoint of a run, None if there is none."""
    return max(_published(run), default=None)


def step_of(folder: Path) -> int:
    """The step of a published checkpoint."""
    return int(folder.name.removeprefix(_PREFIX))


def _published(run: Path) -> list[Path]:
    return [path for path in run.glob(f"{_PREFIX}*") if not path.name.endswith(_PARTIAL)]
