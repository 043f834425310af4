"""The guard can be evaluated: what a configuration says reaches the draw."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from alignpro_lite.eval.config import RhoStarSection
from alignpro_lite.eval.loaded import open_system


@pytest.mark.parametrize("guard", ["strict", "balanced", "off", None])
def test_a_system_draws_under_its_guard(guard):
    given = {"kind": "rho_star", "name": "ρ*"} | ({"guard": guard} if guard else {})
    section = msgspec.convert(given, RhoStarSection)
    loaded: Any = SimpleNamespace(
        config=SimpleNamespace(answers=SimpleNamespace(max_tokens=64)),
        require_llama=lambda name: None,
        prompter=lambda bundle: None,
        reward=None,
    )
    places: Any = None
    system: Any = open_system(section, loaded, places, {}, "")
    assert system.keywords["settings"].guard == (guard or "off")


@pytest.mark.parametrize("wrong", [True, False, "loose", 1])
def test_another_guard_is_refused(wrong):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kind": "rho_star", "name": "ρ*", "guard": wrong}, RhoStarSection)
