"""How to compile llama.cpp for this CPU.

Needs nothing but Python, because it is also run as a file before anything is installed: it prints
CMake's options then. What `-march=native` would do is not asked for, because compilers add AMX by
themselves; see `_keeps_tile_configuration`.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

TESTED_VERSION = "0.3.36"
"""The llama-cpp-python that the project is tested with; constraints.txt has the same."""

_CPUINFO = Path("/proc/cpuinfo")
_X86 = {"x86_64", "amd64", "i386", "i686"}
_PORTABLE = "-DGGML_NATIVE=OFF"
_COMPILE_SECONDS = 60.0


@dataclass(frozen=True)
class _InstructionSet:
    """One that llama.cpp has kernels for.

    Attributes:
        name: As in the option `GGML_<name>` and, mostly, in `llama_print_system_info`.
        flags: What Linux calls it in /proc/cpuinfo; a CPU has to have all.
        option: What turns it on in GCC and Clang.
    """

    name: str
    flags: frozenset[str]
    option: str


def _set(name: str, flags: str, option: str = "") -> _InstructionSet:
    return _InstructionSet(name, frozenset(flags.split()), option)


_USUAL = (
    _set("SSE42", "sse4_2"),
    _set("AVX", "avx"),
    _set("F16C", "f16c"),
    _set("FMA", "fma"),
    _set("AVX2", "avx2"),
    _set("BMI2", "bmi2"),
)
"""On in a portable build, and known to every compiler."""
_VNNI = _set("AVX512_VNNI", "avx512f avx512_vnni", "-mavx512vnni")
_NEWER = (
    _set("AVX_VNNI", "avx_vnni", "-mavxvnni"),
    _set("AVX512", "avx512f avx512cd avx512vl avx512dq avx512bw", "-mavx512vl"),
    _set("AVX512_VBMI", "avx512f avx512vbmi", "-mavx512vbmi"),
    _VNNI,
    _set("AVX512_BF16", "avx512f avx512_bf16", "-mavx512bf16"),
)
"""Off unless asked for, and unknown to older compilers."""
_AMX = (
    _set("AMX_TILE", "amx_tile", "-mamx-tile"),
    _set("AMX_INT8", "amx_tile amx_int8", "-mamx-int8"),
)
_ARM = (_set("DOTPROD", "asimddp"), _set("MATMUL_INT8", "i8mm"))
"""What a native build on ARM gains most from."""
_UNREPORTED = {"SSE42", "AMX_TILE"}

_CONFIGURE_TILES = """
#include <immintrin.h>
void configure(char rows) {
    alignas(64) unsigned char configuration[64] = {1};
    configuration[48] = rows;
    _tile_loadconfig(configuration);
}
"""
_FIRST_ARGUMENT = re.compile(r"%(edi|dil)\b")


def cpu_flags() -> frozenset[str]:
    """What the CPU can do, in the words of Linux; empty where the system does not tell."""
    try:
        with _CPUINFO.open(encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass  # only Linux has it
    return frozenset()


def fitting_args() -> str:
    """CMake's options for the build that is fastest on this CPU with this compiler."""
    flags = cpu_flags()
    if not _is_x86() or sys.platform == "darwin":
        return "-DGGML_NATIVE=ON"
    if not flags:
        return _PORTABLE
    wanted = [f"-DGGML_{name}=ON" for name in _newer_sets(flags)]
    return " ".join([portable_args(), *wanted])


def portable_args() -> str:
    """CMake's options for a build without AVX-512 and AMX, and without what this CPU lacks."""
    flags = cpu_flags()
    if not flags or not _is_x86():
        return _PORTABLE
    changed = [f"-DGGML_{part.name}=OFF" for part in _USUAL if not part.flags <= flags]
    if "SOURCE_DATE_EPOCH" in os.environ:  # then llama.cpp turns the usual ones off
        changed += [f"-DGGML_{part.name}=ON" for part in _USUAL if part.flags <= flags]
    return " ".join([_PORTABLE, *changed])


def unused_sets(compiled: Set[str]) -> tuple[str, ...]:
    """Instruction sets that another build of llama.cpp would use on this CPU.

    Args:
        compiled: Those that the installed one was compiled with, in llama.cpp's own names.
    """
    flags = cpu_flags()
    usual = [part.name for part in (_USUAL if _is_x86() else _ARM) if part.flags <= flags]
    usable = [*usual, *(_newer_sets(flags) if _is_x86() else ())]
    return tuple(name for name in usable if name not in compiled | _UNREPORTED)


def install_command(cmake_args: str) -> str:
    """The command that compiles the tested llama-cpp-python anew.

    Without `--no-cache-dir`, pip would take a wheel that it once compiled with other options.
    """
    setting = f'CMAKE_ARGS="{cmake_args}" '
    if os.name == "nt":
        setting = f'$env:CMAKE_ARGS="{cmake_args}"; '
    return (
        f"{setting}pip install --force-reinstall --no-deps --no-cache-dir "
        f"--no-binary llama-cpp-python llama-cpp-python=={TESTED_VERSION}"
    )


def _is_x86() -> bool:
    return platform.machine().lower() in _X86


def _newer_sets(flags: Set[str]) -> list[str]:
    """Of the sets that are off in a portable build, those that CPU and compiler have."""
    compiler = _compiler()
    parts = [part for part in _NEWER if part.flags <= flags and _compiles(compiler, part.option)]
    has_amx = all(part.flags <= flags for part in _AMX) and _VNNI in parts
    if has_amx and _keeps_tile_configuration(compiler):
        parts += _AMX
    return [part.name for part in parts]


def _compiler() -> list[str]:
    """The command of the C++ compiler that CMake takes; empty if there is none."""
    if named := shlex.split(os.environ.get("CXX", "")):
        return named
    found = (shutil.which(name) for name in ("c++", "g++", "clang++"))
    return [path for path in found if path][:1]


def _compiles(compiler: list[str], option: str) -> bool:
    return _assembly(compiler, option, "int x;") is not None


def _keeps_tile_configuration(compiler: list[str]) -> bool:
    """Whether AMX may be used.

    llama.cpp fills in a table of tile sizes and loads it with `_tile_loadconfig`. Before 11.5,
    12.4, 13.3 and 14.1, GCC's header told the compiler that this reads 8 of the 64 bytes, so the
    optimiser drops the sizes, the tiles stay unconfigured, and the first product of two matrices
    ends the process (llama.cpp issue 20824). So the compiler is asked: of a table's 49th byte, the
    assembly has to mention where its value comes from.
    """
    assembly = _assembly(compiler, "-mamx-int8", _CONFIGURE_TILES)
    return assembly is not None and _FIRST_ARGUMENT.search(assembly) is not None


def _assembly(compiler: list[str], option: str, source: str) -> str | None:
    """What a compiler makes of C++, None if it refuses."""
    if not compiler:
        return None
    command = [*compiler, "-x", "c++", "-std=c++17", "-O2", option, "-S", "-o", "-", "-"]
    try:
        done = subprocess.run(
            command,
            input=source,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_COMPILE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    print(fitting_args())
