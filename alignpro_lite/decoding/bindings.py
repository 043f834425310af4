"""Whether llama-cpp-python's structures are those of the library that it loaded.

ctypes believes what it is told. Where a library has a longer structure than its bindings, it
writes behind what Python allocated; where a field moved, the size of a context becomes that of a
batch. That happens where the library was exchanged: with `LLAMA_CPP_LIB_PATH`, or by half an
upgrade. So it is asked for its defaults, in a buffer that any layout fits into: how far it writes
is the size, and known values show that the fields are where the bindings look for them.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from alignpro_lite.errors import MissingDependencyError
from alignpro_lite.hardware.llama_build import fitting_args, install_command

LIBRARY_PATH = "LLAMA_CPP_LIB_PATH"
"""With this variable llama-cpp-python loads the libraries of another folder."""
_ROOM = 4096
_MODEL_DEFAULTS = {
    "split_mode": 1,
    "main_gpu": 0,
    "tensor_split": None,
    "kv_overrides": None,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
}
_CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "yarn_ext_factor": -1.0,
    "cb_eval_user_data": None,
    "type_k": 1,
    "type_v": 1,
    "abort_callback_data": None,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "kv_unified": False,
}
"""Defaults that have not changed in years, from the beginning to the end of each structure."""


@cache
def require_fitting(lib: ModuleType) -> None:
    """Compare the structures of `llama_cpp` with its library, once in a process.

    Raises:
        MissingDependencyError: They differ.
    """
    for kind, defaults in (("model", _MODEL_DEFAULTS), ("context", _CONTEXT_DEFAULTS)):
        function = getattr(lib, f"llama_{kind}_default_params")
        if difference := _difference(function, defaults):
            raise bindings_error(lib, f"llama_{kind}_params {difference}")


def bindings_error(lib: ModuleType | None, problem: str) -> MissingDependencyError:
    """What to say of a llama-cpp-python that cannot be used."""
    version = f" {lib.__version__}" if lib else ""
    elsewhere = os.environ.get(LIBRARY_PATH)
    unset = f"Unset {LIBRARY_PATH}, which is {elsewhere}. Otherwise reinstall" if elsewhere else ""
    return MissingDependencyError(
        f"llama-cpp-python{version} and its library do not fit each other: {problem}.",
        f"{unset or 'Reinstall'} it: `{install_command(fitting_args())}`.",
    )


def _difference(function: Any, defaults: Mapping[str, object]) -> str:
    """What tells a structure of the library from that of the bindings; empty if nothing does."""
    structure = function.restype
    if _is_x86_64():
        size = _written_size(function)
        if not _least_size(structure) <= size <= ctypes.sizeof(structure):
            return f"has {size} bytes in the library, {ctypes.sizeof(structure)} in the bindings"
    found = _returned(function)
    for name, value in defaults.items():
        read = getattr(found, name, value)
        if not isinstance(read, int | float):
            read = read or None  # a null pointer
        if read != value:
            return f"has {name} {value} by default, found {read}"
    return ""


def _is_x86_64() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64") and ctypes.sizeof(ctypes.c_void_p) == 8


def _written_size(function: Any) -> int:
    """How many bytes a function writes that returns a structure.

    On x86-64 such a function gets, on every system, the address of the structure as its first
    argument. It is called with two buffers; bytes that it leaves alone differ.
    """
    fill = ctypes.cast(function, ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p))
    buffers = [ctypes.create_string_buffer(byte * _ROOM, _ROOM) for byte in (b"\x00", b"\xff")]
    for buffer in buffers:
        fill(ctypes.addressof(buffer))
    same = [first == second for first, second in zip(*buffers, strict=True)]
    return _ROOM - same[::-1].index(True)


def _least_size(structure: Any) -> int:
    """The size without what aligns the end."""
    last = getattr(structure, structure._fields_[-1][0])
    return int(last.offset + last.size)


def _returned(function: Any) -> Any:
    """What a function returns, with room for a longer structure than the bindings know."""

    class Roomy(ctypes.Structure):
        _fields_ = (("known", function.restype), ("beyond", ctypes.c_char * _ROOM))

    return ctypes.cast(function, ctypes.CFUNCTYPE(Roomy))().known
