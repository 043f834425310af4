"""What llama.cpp takes, against what the plan says that it takes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from alignpro_lite.gguf.reading import read_header
from alignpro_lite.hardware.device import LlamaDevices
from alignpro_lite.hardware.memory import TargetNeeds
from alignpro_lite.registry import ModelStore

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux", reason="reads Linux pseudo files"),
]

SHORT, LONG = 512, 6144
PROGRAM = f"""
import re, sys
from pathlib import Path
from alignpro_lite.target.llama import LlamaStepper, TargetSettings, open_model

def anonymous():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", status)[1])

settings = [TargetSettings(context, 4, 0, None, 1) for context in ({SHORT}, {LONG})]
model = open_model(Path(sys.argv[1]), settings[0])
steppers, taken = [], [anonymous()]
for each in settings:
    steppers.append(LlamaStepper(model, each))
    taken.append(anonymous())
print(taken[2] - 2 * taken[1] + taken[0])
"""


def test_the_kv_cache_takes_what_the_plan_says() -> None:
    """What a longer context takes beyond a shorter one, so that nothing else counts."""
    path = ModelStore.open(preset="small").path("target", "default")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path], capture_output=True, text=True, check=True
    )
    needs = TargetNeeds(read_header(path), LlamaDevices(("CPU",), ()))
    expected = needs.kv_token_bytes * (LONG - SHORT)
    assert int(done.stdout) == pytest.approx(expected, rel=0.05)
