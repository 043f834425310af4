"""llama-cpp-python beside a library with other structures, and how that is told apart."""

from __future__ import annotations

import ctypes
import types

import pytest

from alignpro_lite.decoding import bindings, llamacpp
from alignpro_lite.decoding.bindings import require_fitting
from alignpro_lite.errors import MissingDependencyError

LIB = llamacpp.llama_cpp()
MODEL = tuple(LIB.llama_model_params._fields_)
CONTEXT = tuple(LIB.llama_context_params._fields_)


def believing(model=MODEL, context=CONTEXT):
    """Bindings with their own idea of the structures, in front of the real library."""
    lib = types.ModuleType("llama_cpp")
    vars(lib)["__version__"] = "9.9.9"
    for kind, fields in (("model", model), ("context", context)):
        name = f"llama_{kind}_default_params"
        structure = type("Params", (ctypes.Structure,), {"_fields_": list(fields)})
        setattr(lib, name, ctypes.cast(getattr(LIB, name), ctypes.CFUNCTYPE(structure)))
    return lib


def moved(fields, first, second):
    """Fields of which two have changed places."""
    names = [name for name, _ in fields]
    changed = list(fields)
    places = names.index(first), names.index(second)
    changed[places[0]], changed[places[1]] = changed[places[1]], changed[places[0]]
    return changed


on_x86_64 = pytest.mark.skipif(not bindings._is_x86_64(), reason="sizes are measured there only")


@pytest.mark.parametrize("measured", [pytest.param(True, marks=on_x86_64), False])
def test_the_installed_pair_fits(monkeypatch, measured):
    monkeypatch.setattr(bindings, "_is_x86_64", lambda: measured)
    require_fitting(believing())
    require_fitting(believing(model=MODEL[:-1]))  # the library has one more, in the padding


@on_x86_64
@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"context": CONTEXT[:-1]}, "llama_context_params has 160 bytes in the library, 152 in"),
        ({"context": [*CONTEXT, ("x", ctypes.c_int)]}, "has 160 bytes in the library, 168 in"),
        ({"model": MODEL[:-7]}, "llama_model_params has 78 bytes in the library, 64 in"),
        ({"model": [("x", ctypes.c_void_p), *MODEL]}, "has 78 bytes in the library, 88 in"),
    ],
    ids=["shorter", "longer", "shorter model", "longer model"],
)
def test_another_size_is_refused_before_anything_is_overwritten(changed, problem):
    """ctypes let the library write 8 bytes behind the structure that Python had allocated."""
    with pytest.raises(MissingDependencyError, match=problem) as caught:
        require_fitting(believing(**changed))
    assert "9.9.9" in caught.value.problem
    assert "pip install --force-reinstall" in caught.value.cure


@pytest.mark.parametrize("measured", [pytest.param(True, marks=on_x86_64), False])
@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"context": moved(CONTEXT, "n_ctx", "n_batch")}, "n_ctx 512 by default, found 2048"),
        ({"context": moved(CONTEXT, "embeddings", "no_perf")}, "embeddings False by default"),
        ({"context": moved(CONTEXT, "type_k", "cb_eval_user_data")}, "llama_context_params"),
        ({"model": moved(MODEL, "use_extra_bufts", "vocab_only")}, "vocab_only False by default"),
        ({"model": moved(MODEL, "split_mode", "n_gpu_layers")}, "split_mode 1 by default"),
    ],
    ids=["sizes", "booleans", "pointer and number", "model booleans", "model numbers"],
)
def test_fields_in_other_places_are_refused(monkeypatch, measured, changed, problem):
    monkeypatch.setattr(bindings, "_is_x86_64", lambda: measured)
    with pytest.raises(MissingDependencyError, match=problem):
        require_fitting(believing(**changed))


def test_the_variable_that_names_another_library_is_named(monkeypatch):
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", "/some/folder")
    with pytest.raises(MissingDependencyError) as caught:
        require_fitting(believing(context=moved(CONTEXT, "n_ctx", "n_batch")))
    assert caught.value.cure.startswith("Unset LLAMA_CPP_LIB_PATH, which is /some/folder.")


def test_a_library_without_a_function_is_a_typed_error(monkeypatch):
    """The import of llama_cpp raised AttributeError, a traceback for the user."""

    def broken(name, *arguments, **named):
        if name == "llama_cpp":
            raise AttributeError("undefined symbol: llama_new")
        return real(name, *arguments, **named)

    real = __import__
    monkeypatch.setattr("builtins.__import__", broken)
    with pytest.raises(MissingDependencyError, match="undefined symbol: llama_new"):
        llamacpp.llama_cpp()


def test_the_build_says_what_it_was_compiled_for():
    build = llamacpp.installed_build()
    assert build.version == LIB.__version__
    assert build.instruction_sets, "every build since 2024 tells"
    assert not {"OPENMP", "LLAMAFILE", "REPACK"} & set(build.instruction_sets)
