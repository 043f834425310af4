"""What doctor says of llama.cpp: what it was compiled for, and what would be faster."""

from __future__ import annotations

import pytest

from alignpro_lite import doctor
from alignpro_lite.cli.doctor import _llama, _llama_lines
from alignpro_lite.decoding.llamacpp import LlamaBuild
from alignpro_lite.errors import MissingDependencyError
from alignpro_lite.hardware.llama_build import TESTED_VERSION


@pytest.fixture
def installed(monkeypatch):
    """Pretend a build of llama.cpp, on a CPU with AVX-512."""

    def pretend(build):
        monkeypatch.setattr(doctor, "installed_build", lambda: build)
        monkeypatch.setattr(doctor, "unused_sets", lambda has: tuple({"AVX2", "AVX512"} - has))
        monkeypatch.setattr(doctor, "fitting_args", lambda: "-DGGML_AVX512=ON")
        return "\n".join(_llama_lines(_llama()))

    return pretend


def test_a_faster_build_is_named_with_its_command(installed):
    text = installed(LlamaBuild(TESTED_VERSION, ("AVX", "AVX2"), uses_gpu=False))
    assert "compiled for       AVX AVX2\n" in text
    assert "AVX512: a build that uses them is faster" in text
    assert 'CMAKE_ARGS="-DGGML_AVX512=ON" pip install' in text
    assert "was not tested" not in text


@pytest.mark.parametrize("uses_gpu", [True, False])
def test_nothing_is_advised_where_nothing_is_gained(installed, uses_gpu):
    """The command for the CPU would replace a build for a GPU."""
    sets = () if uses_gpu else ("AVX2", "AVX512")
    text = installed(LlamaBuild(TESTED_VERSION, sets, uses_gpu=uses_gpu))
    assert text.startswith("  compiled for")
    assert "faster" not in text


def test_another_version_is_taken_and_named(installed):
    text = installed(LlamaBuild("9.9.9", ("AVX2", "AVX512"), uses_gpu=False))
    assert f"llama-cpp-python 9.9.9 was not tested, {TESTED_VERSION} was" in text


def test_a_llama_cpp_that_does_not_load_is_a_line_of_the_report(monkeypatch):
    def broken():
        raise MissingDependencyError("It is broken.", "Mend it.")

    monkeypatch.setattr(doctor, "installed_build", broken)
    assert _llama_lines(_llama()) == ["  It is broken. Mend it."]
