"""The Visual C++ runtime, as Windows has it or not."""

from __future__ import annotations

import ctypes
import sys

import pytest

from alignpro_lite.cli import doctor
from alignpro_lite.errors import MissingDependencyError
from alignpro_lite.hardware.vc_runtime import VC_LIBRARIES, require_vc_runtime

NAME = "the Visual C++ runtime is installed"


def installed(monkeypatch, *names):
    """A Windows with these libraries."""

    def load(name):
        if name not in names:
            raise OSError(f"Could not find module {name!r}")

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", load)


def test_a_whole_runtime_is_accepted(monkeypatch):
    installed(monkeypatch, *VC_LIBRARIES)
    require_vc_runtime()


def test_what_python_does_not_bring_is_missed_by_name(monkeypatch):
    installed(monkeypatch, "vcruntime140.dll", "vcruntime140_1.dll")
    with pytest.raises(MissingDependencyError, match=r"lacks msvcp140\.dll") as caught:
        require_vc_runtime()
    assert "vc_redist" in caught.value.cure


def test_doctor_checks_it_on_windows_alone(monkeypatch):
    monkeypatch.setattr(doctor, "_llama_devices", lambda: "CPU")
    if sys.platform != "win32":
        assert NAME not in doctor._engines()
    installed(monkeypatch)
    assert "vc_redist" in doctor._engines()[NAME]
    installed(monkeypatch, *VC_LIBRARIES)
    assert doctor._engines()[NAME] is True
