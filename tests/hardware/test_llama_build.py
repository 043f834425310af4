"""How llama.cpp is compiled: for CPUs and with compilers that this machine does not have."""

from __future__ import annotations

import subprocess
import sys

import pytest

from alignpro_lite.hardware import llama_build
from alignpro_lite.hardware.llama_build import (
    TESTED_VERSION,
    cpu_flags,
    fitting_args,
    install_command,
    portable_args,
    unused_sets,
)
from tests.support import ROOT

HASWELL = "fpu sse2 sse4_2 avx f16c fma avx2 bmi2"
SKYLAKE_X = f"{HASWELL} avx512f avx512cd avx512vl avx512dq avx512bw"
ZEN4 = f"{SKYLAKE_X} avx512vbmi avx512_vnni avx512_bf16"
SAPPHIRE_RAPIDS = f"{ZEN4} avx_vnni amx_tile amx_int8 amx_bf16"
KEEPS = "movb %dil, -16(%rsp)\nldtilecfg -64(%rsp)"
DROPS = "movq $1, -64(%rsp)\nldtilecfg -64(%rsp)"
NEW = "-DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON -DGGML_AVX512_BF16=ON"
AMX = "-DGGML_AMX_TILE=ON -DGGML_AMX_INT8=ON"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Pretend another CPU and compiler."""

    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)

    def pretend(flags, assembly=KEEPS, refused=(), name="x86_64", system="linux"):
        file = tmp_path / "cpuinfo"
        key = "flags" if name == "x86_64" else "Features"
        file.write_text(f"model name\t: Any CPU\n{key}\t\t: {flags}\n\n" * 2, encoding="utf-8")
        monkeypatch.setattr(llama_build, "_CPUINFO", file)
        monkeypatch.setattr("platform.machine", lambda: name)
        monkeypatch.setattr(sys, "platform", system)
        monkeypatch.setattr(
            llama_build, "_assembly", lambda _, opt, __: None if opt in refused else assembly
        )

    return pretend


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (HASWELL, "-DGGML_NATIVE=OFF"),
        (SKYLAKE_X, "-DGGML_NATIVE=OFF -DGGML_AVX512=ON"),
        (ZEN4, f"-DGGML_NATIVE=OFF {NEW}"),
        (SAPPHIRE_RAPIDS, f"-DGGML_NATIVE=OFF -DGGML_AVX_VNNI=ON {NEW} {AMX}"),
        (
            "fpu sse2 sse4_2 avx",
            "-DGGML_NATIVE=OFF -DGGML_F16C=OFF -DGGML_FMA=OFF -DGGML_AVX2=OFF -DGGML_BMI2=OFF",
        ),
    ],
    ids=["AVX2", "AVX-512", "VNNI", "AMX", "AVX"],
)
def test_a_build_uses_what_the_cpu_has_and_nothing_else(machine, flags, expected):
    """Every CPU got a build for AVX2: slower than need be on one, SIGILL on another."""
    machine(flags)
    assert fitting_args() == expected


def test_without_amx_where_the_compiler_drops_the_tile_configuration(machine):
    """GCC 12.2 builds AMX code that ends the process at the first product (llama.cpp 20824)."""
    machine(SAPPHIRE_RAPIDS, assembly=DROPS)
    assert "AMX" not in fitting_args()
    assert "AVX512_BF16=ON" in fitting_args()
    assert unused_sets({"AVX", "F16C", "FMA", "AVX2", "BMI2", "AVX_VNNI", "AVX512"}) == (
        "AVX512_VBMI",
        "AVX512_VNNI",
        "AVX512_BF16",
    )


def test_a_reproducible_environment_gets_no_build_without_avx2(machine, monkeypatch):
    """llama.cpp's defaults are off where SOURCE_DATE_EPOCH is set, as in a nix shell."""
    machine(HASWELL)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert "-DGGML_AVX2=ON" in fitting_args()


@pytest.mark.parametrize("refused", ["-mamx-int8", "-mavx512vnni"])
def test_amx_needs_its_own_option_and_that_of_vnni(machine, refused):
    machine(SAPPHIRE_RAPIDS, refused=[refused])
    assert "AMX" not in fitting_args()


def test_an_old_compiler_is_not_asked_for_what_it_does_not_know(machine):
    """`-mavx512bf16` is an error in GCC 9."""
    machine(ZEN4, refused=["-mavx512bf16", "-mamx-int8"])
    assert fitting_args().endswith("-DGGML_AVX512_VNNI=ON")


@pytest.mark.parametrize(
    ("name", "system", "flags", "expected"),
    [
        ("aarch64", "linux", "fp asimd asimddp", "-DGGML_NATIVE=ON"),
        ("arm64", "darwin", "", "-DGGML_NATIVE=ON"),
        ("x86_64", "darwin", "", "-DGGML_NATIVE=ON"),
        ("AMD64", "win32", "", "-DGGML_NATIVE=OFF"),
    ],
)
def test_elsewhere_the_compiler_finds_out_unless_that_might_add_amx(
    machine, name, system, flags, expected
):
    machine(flags, name=name, system=system)
    assert fitting_args() == expected


def test_a_system_that_does_not_describe_its_cpu_gets_a_portable_build(tmp_path, monkeypatch):
    monkeypatch.setattr(llama_build, "_CPUINFO", tmp_path / "missing")
    assert cpu_flags() == frozenset()
    assert portable_args() == "-DGGML_NATIVE=OFF"


def test_what_is_unused_is_named_and_nothing_where_all_is_used(machine):
    machine(ZEN4)
    portable = {"SSE3", "SSSE3", "AVX", "AVX2", "F16C", "FMA", "BMI2"}
    newer = {"AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"}
    assert set(unused_sets(portable)) == newer
    assert unused_sets(portable | newer) == ()
    machine("asimd asimddp i8mm", name="aarch64")
    assert unused_sets({"NEON"}) == ("DOTPROD", "MATMUL_INT8")


def test_the_compiler_of_this_machine_is_asked_for_its_assembly(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler --option")
    assert llama_build._compiler() == ["no-such-compiler", "--option"]
    assert not llama_build._compiles(llama_build._compiler(), "-O1")
    monkeypatch.delenv("CXX")
    if compiler := llama_build._compiler():
        assert llama_build._compiles(compiler, "-O1")
        assert not llama_build._compiles(compiler, "-mno-such-instruction-set")


@pytest.mark.parametrize(
    ("constraint", "kept"), [("const void **", False), ("const char (*)[64]", True)]
)
def test_a_compiler_that_reads_too_little_of_the_table_is_recognised(constraint, kept):
    """The header's own words before its correction, and what the correction amounts to."""
    compiler = llama_build._compiler()
    if llama_build._assembly(compiler, "-mamx-int8", "int x;") is None:
        pytest.skip("needs a compiler that knows AMX")
    source = llama_build._CONFIGURE_TILES.replace(
        "_tile_loadconfig(configuration)",
        f'__asm__ volatile ("ldtilecfg %0" :: "m" (*((({constraint}) configuration))))',
    )
    assembly = llama_build._assembly(compiler, "-mamx-int8", source)
    assert bool(llama_build._FIRST_ARGUMENT.search(assembly or "")) == kept


def test_the_options_are_printed_before_anything_is_installed():
    """With nothing of the package on the path, as `make` and the README run it."""
    file = ROOT / "alignpro_lite" / "hardware" / "llama_build.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == fitting_args()


def test_the_tested_version_is_the_pinned_one(monkeypatch):
    assert f"llama_cpp_python=={TESTED_VERSION}\n" in (ROOT / "constraints.txt").read_text("utf-8")
    command = install_command("-DX=ON")
    assert command.startswith('CMAKE_ARGS="-DX=ON" pip install ')
    assert "--no-deps" in command, "or it replaces numpy too"
    monkeypatch.setattr("os.name", "nt")
    assert install_command("-DX=ON").startswith('$env:CMAKE_ARGS="-DX=ON"; pip install ')
