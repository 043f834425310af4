"""Every benchmark runs: one short round of each, on the tiny models where these will do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, TINY_BUNDLE, TINY_TARGET

MODELS: list[str | Path] = ["--target", TINY_TARGET, "--prompter", TINY_BUNDLE]
SHORT_ROUNDS: dict[str, list[str | Path]] = {
    "cancelling.py": [*MODELS, "--rounds", "1", "--tokens", "300"],
    "candidates.py": [
        *(*MODELS, "--reward", "tests.support.reward_functions:length"),
        *("--strength", "1", "--repeats", "1", "--tokens", "8"),
    ],
    "compatibility.py": MODELS,
    "constraints.py": ["--schemas", "12", "--answers", "1"],
    "engines.py": [*MODELS, "--rounds", "1", "--tokens", "8"],
    "export_graphs.py": [TINY_BUNDLE / "model.onnx", "--head-dim", "16"],
    "isolation.py": ["--target", TINY_TARGET, "--rounds", "2", "--tokens", "8"],
    "noise.py": ["--requests", "20"],
    "objectives.py": ["--seeds", "1", "--calls", "192"],
    "reference.py": ["--trained", TINY_BUNDLE, "--base", TINY_BUNDLE],
    "samplers.py": ["--draws", "2000", "--requests", "250"],
    "serving.py": [*MODELS, "--requests", "20", "--rounds", "1", "--tokens", "4"],
    "startup.py": ["1"],
}
"""What makes each of them short."""


def test_every_benchmark_has_a_short_round():
    assert {path.name for path in (ROOT / "benchmarks").glob("*.py")} == set(SHORT_ROUNDS)


@pytest.mark.skipif(sys.platform != "linux", reason="some read /proc, genai needs links")
@pytest.mark.parametrize("name", SHORT_ROUNDS)
def test_a_short_round_runs(name):
    """engines.py and export_graphs.py could not run since the adapter got its gate."""
    if name == "objectives.py" and importlib.util.find_spec("trl") is None:
        pytest.skip('needs pip install "alignpro-lite[benchmarks]"')
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / name, *SHORT_ROUNDS[name]],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
